"""What `launch.py` takes: its options, their help and their examples."""

from __future__ import annotations

import argparse
import pkgutil

from sousaphone.backbones.registry import DEFAULT_SWEEP, REGISTRY
from sousaphone.cli.parser import Parser
from sousaphone.config import DATASET_SIZES, LORA_TARGETS, STRATEGIES, settable
from sousaphone.planning.job import STALL_TIMEOUT, TRACKERS, TRIAL_TIME_LIMIT
from sousaphone.planning.options import DEFAULT_EPOCHS, TINY_EPOCHS
from sousaphone.planning.resolve import AUGMENT

_EXAMPLES = """\
examples:
  launch.py                                             eight small trials on built-in data, in minutes
  launch.py --dataset small --data-dir SOUSA --plan     how long would it take?
  launch.py --dataset small --data-dir SOUSA --name first --trial-time-limit 12h
  launch.py --resume --name first                       after a stop or a crash
  launch.py --resume --name first --retry-failed        and try the failed trials again
  launch.py --extend --name first --seeds 0 1 2         add two seeds to what is there
  launch.py --promote first --dataset full --epochs 50  train the best of them on everything

exit codes: 0 every trial ended well; 1 one did not, or Ray was lost; 2 wrong input, or Ray cannot start: nothing
begun; 130 interrupted"""


def build_parser() -> argparse.ArgumentParser:
    """Every option defaults to None, so that a resumed run can tell what was asked for from what was not."""
    parser = Parser(
        prog="launch.py",
        usage="%(prog)s [options]",
        description="Fine-tune pretrained audio backbones with LoRA on the 40 drum rudiments and compare them.",
        epilog=_settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what is compared")
    what.add_argument("--config", metavar="NAME", help=f"sweep: {', '.join(config_names())} (default backbones)")
    what.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help=f"backbones: {' '.join(REGISTRY)} (default {' '.join(DEFAULT_SWEEP)})",
    )
    what.add_argument("--augment", choices=AUGMENT, help="augmentation (default both: every backbone with and without)")
    what.add_argument("--strategy", choices=STRATEGIES, help="what trains beside the fresh layers (default lora)")
    what.add_argument("--lora-targets", choices=LORA_TARGETS, help="layers that get adapters (default all-linear)")
    what.add_argument(
        "--scale", choices=("auto", "base", "nano"), help="base: published sizes; nano: small (default auto)"
    )
    what.add_argument(
        "--weights", nargs="+", metavar="W", help="auto, random, or NAME=PATH, NAME=hub:OWNER/NAME ... (default auto)"
    )
    what.add_argument(
        "--rates", metavar="FILE", help="learning rates that --config rates found (default: the backbones' own)"
    )
    what.add_argument("--seeds", nargs="+", type=int, metavar="N", help="one trial each (default 0)")
    what.add_argument("--epochs", type=int, metavar="N", help=f"default {DEFAULT_EPOCHS}, at tiny {TINY_EPOCHS}")
    text = "further settings, listed below; of one that is given twice the last counts"
    what.add_argument("--set", nargs="+", action="extend", metavar="KEY=VALUE", help=text)
    data = parser.add_argument_group("data")
    sizes = ", ".join(f"{name} {size:,}" if size else f"{name} all" for name, size in DATASET_SIZES.items())
    data.add_argument("--dataset", choices=DATASET_SIZES, help=f"clips, at most: {sizes} (default tiny)")
    data.add_argument(
        "--data-dir",
        metavar="DIR",
        help="SOUSA, a folder of recordings, a CSV, or hub:OWNER/NAME (default SOUSA_DATASET_PATH, else built-in)",
    )
    data.add_argument(
        "--hold-out", metavar="WHAT=NAME", help="soundfont=NAME or preset=NAME: kept from training, scored apart"
    )
    data.add_argument(
        "--test-also", metavar="DIR", help="a further data set of any of these forms, scored apart, never selected on"
    )
    run = parser.add_argument_group("the run")
    run.add_argument("--name", help="of the run (default: made from sweep, size and time)")
    run.add_argument("--storage", metavar="DIR", help="where runs live (default results)")
    run.add_argument("--plan", action="store_true", help="say what would be done and how long it takes, and stop")
    run.add_argument(
        "--timing",
        action=argparse.BooleanOptionalAction,
        help="time a few steps of each arm first (default: where cheap)",
    )
    run.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        help="measure first what results are held against: simple baselines, CPU time a clip (default: on; about 15 s "
        "at tiny and nano on two cores, minutes for many clips)",
    )
    run.add_argument("--yes", action="store_true", help="start although a time limit will cut trials off")
    run.add_argument(
        "--tracker", choices=TRACKERS, help="metrics also to Weights & Biases, offline unless WANDB_MODE says otherwise"
    )
    limits = parser.add_argument_group("time limits, such as 45s, 90m, 2h or 1h30m; none lifts one")
    limits.add_argument("--trial-time-limit", metavar="T", help=f"of each trial (default {TRIAL_TIME_LIMIT})")
    limits.add_argument("--time-limit", metavar="T", help="of this launch, all trials together (default none)")
    limits.add_argument(
        "--stall-timeout", metavar="T", help=f"a trial without a batch for so long is hung (default {STALL_TIMEOUT})"
    )
    again = parser.add_argument_group("a run that exists")
    again.add_argument("--resume", action="store_true", help="go on with the run called --name (default: the newest)")
    again.add_argument("--retry-failed", action="store_true", help="with --resume: try failed trials again, too")
    again.add_argument(
        "--extend", action="store_true", help="add --models, --augment or --seeds to it, and go on with it"
    )
    again.add_argument(
        "--promote", metavar="RUN", help="train the best trial of RUN as a run of its own (--dataset, --epochs)"
    )
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), help="default auto: the best there is")
    machine.add_argument(
        "--cpus-per-trial", type=float, metavar="X", help="default: one at nano scale on a CPU, else a fair share"
    )
    machine.add_argument("--gpus-per-trial", type=float, metavar="X", help="default: one where there is one")
    machine.add_argument("--max-concurrent", type=int, metavar="N", help="trials at a time (default: as many as fit)")
    machine.add_argument("--dashboard", action="store_true", help="bring up Ray's dashboard on 127.0.0.1")
    return parser


def _settings_help() -> str:
    rows = [f"  {name:<20} {f.metadata['help']} (default {f.default})" for name, f in settable().items()]
    return "\n".join(["settings for --set (a sweep may have its own defaults):", *rows, "", _EXAMPLES])


def config_names() -> list[str]:
    import tune_configs

    return [m.name for m in pkgutil.iter_modules(tune_configs.__path__) if m.name != "resources"]
