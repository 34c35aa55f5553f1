"""sousaphone export RUN --to DIR: the best trial of a run as a model folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from sousaphone.cli.command import EXIT_OK, Parser, prepare_process, require_torchaudio, run_command
from sousaphone.errors import UserError, printable
from sousaphone.runs.deployment import Runtime
from sousaphone.runs.directory import RunDirectory

_DESCRIPTION = """\
Export a trained model of a run as a model folder, which `sousaphone predict`, `sousaphone evaluate`, `sousaphone.load`
in Python, and PEFT (adapters) read. By default, it is the best finished trial of the best arm; both are selected by
validation macro F1, as in the report.

  config.json                 architecture, classes, sample rate, base weights, calibration, versions, licences
  adapter_model.safetensors   the adapter and the new layers in PEFT's format, with adapter_config.json; the base
                              weights are needed for loading
  model.safetensors           instead, with --merged, and always for models without adapters (bitfit, head, full,
                              strokes): everything; the base weights are not needed
  model.onnx, model.int8.onnx  with --onnx and --quantize: from waveform to probabilities, for ONNX Runtime
  README.md, results.json     model card with the verdict, and speed, size and memory on this machine; results
"""
_EPILOG = """\
examples:
  %(prog)s results/first --to my_model
  %(prog)s results/first --merged --to my_model           one file that needs no base weights
  %(prog)s results/first --onnx --quantize --to my_model  also for ONNX Runtime, in float32 and int8
  %(prog)s results/first --ensemble --to my_models        all seeds of the best arm
  %(prog)s results/first --trial ast-lora-aug-on-s0 --to my_model

exit codes: 0 written; 2 wrong argument or input; 130 interrupted
"""


def main(argv: Sequence[str] | None = None, prog: str = "sousaphone export") -> int:
    """Run the command line and return the exit code."""
    prepare_process()
    parser = Parser(prog=prog, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of a run, with its run.json")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--trial", metavar="ID", help="export this trial (default: the best)")
    which.add_argument("--ensemble", action="store_true", help="all seeds of the best arm; probabilities are averaged")
    parser.add_argument("--merged", action="store_true", help="store all tensors, adapters added to the base")
    parser.add_argument("--onnx", action="store_true", help="also write an ONNX graph (extra [deploy])")
    parser.add_argument("--quantize", action="store_true", help="also write one with int8 weights (implies --onnx)")
    parser.add_argument("--to", metavar="DIR", type=Path, required=True, help="a new or empty directory")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace DIR if it is a model folder without other files"
    )
    weights = "the base weights, if they are no longer where the run was started"
    parser.add_argument("--weights", metavar="PATH", type=Path, help=weights)
    options = parser.parse_args(argv)

    def run() -> int:
        require_torchaudio()
        # Imported here because pandas, Matplotlib, Ray and torch are slow to import.
        from analysis.report import read_run
        from analysis.stats.verdict_text import details, headline
        from sousaphone.deploy.export import export
        from sousaphone.deploy.model_card import Statement
        from sousaphone.deploy.onnx_session import refuse_without_onnx
        from sousaphone.deploy.trained_trials import best_arm, trained_trial

        runtimes: list[Runtime] = ["torch"]
        if options.onnx or options.quantize:
            refuse_without_onnx("--quantize" if options.quantize else "--onnx")
            runtimes += ["onnx", "int8"] if options.quantize else ["onnx"]
        directory = RunDirectory(options.run)
        if options.trial is not None:
            trials = [trained_trial(directory, options.trial)]
        else:
            arm = best_arm(directory)
            trials = arm if options.ensemble else arm[:1]
        if options.ensemble and len(trials) < 2:
            raise UserError(f"--ensemble: the best arm of {options.run} has one finished seed; omit --ensemble")
        found = read_run(options.run)
        best = found.baseline_results.best if found.baseline_results else None
        statement = Statement(
            found.banner,
            headline(found.verdict),
            tuple(details(found.verdict)),
            (best.title, best.scores["test_acc"]) if best else None,
        )
        config = export(
            trials,
            options.to,
            statement,
            merged=options.merged,
            runtimes=runtimes,
            measured=True,
            overwrite=options.overwrite,
            weights=options.weights,
        )
        names = ", ".join(trial.record.trial_id for trial in trials)
        use = shlex.join(["sousaphone", "predict", str(options.to), "RECORDING"])
        print(printable(f"exported: {options.to} ({config.kind}) from {names}; to use it: {use}"))
        return EXIT_OK

    return run_command(prog, run)
