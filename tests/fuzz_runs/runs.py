"""A small real run, everything that reads one, and the limits that reading must keep."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from analysis.compare.compare_runs import comparison
from analysis.report import make_files, read_run, write_files
from analysis.run_summary import Findings
from analysis.sections import sections
from analysis.write.exports import epochs_csv
from analysis.write.table import comparison_table, to_csv
from sousaphone.cli.runs import main as runs_command
from sousaphone.cli.sweep import make_sweep, parse
from sousaphone.errors import UserError
from sousaphone.planning.make_job import make_job
from sousaphone.planning.plan import prepare
from sousaphone.planning.resources import Resources
from sousaphone.rudiments import SLUGS
from sousaphone.runs import learning_rates
from sousaphone.runs.deployment import DEPLOYMENT_NAME, TITLES, DeployCard, Deployment, Latency, RuntimeCost
from sousaphone.runs.directory import DriverWatch, RunDirectory
from sousaphone.sweep.capacity import Capacity, pick_resources
from sousaphone.sweep.status_page import write_status
from sousaphone.training.watchdog import HEARTBEAT_NAME, read_heartbeat
from tests.conftest import write_sousa
from tests.fuzz_runs.output import CONTROLS, check_page, check_sections, check_text

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("clip_seconds=1.0", "micro_batch=2", "accumulation=1", "limit_train_batches=1", "limit_eval_batches=1")
SMALL = ("--models", "ast", "--scale", "nano", "--augment", "off", "--epochs", "1", "--no-timing", "--set", *SETTINGS)
SECONDS, MEGABYTES = 30.0, 1500.0  # of one reading in this process: time, growth of the peak memory
# Of one launch, with Ray and a trial, on busy cores; the memory is that of its largest process.
LAUNCH_SECONDS, LAUNCH_MEGABYTES = 400.0, 3000.0


class Overtime(BaseException):
    """Raised by the timer of `fault`; no handler of the program catches it."""


def small_run(root: Path) -> RunDirectory:
    """Make ROOT/runs/run as somebody else would: by launch.py with another key. One of its two trials is finished."""
    data = write_sousa(root / "data", players=3, rudiments=SLUGS[:2], long_clips=0)
    words = ["--name", "run", "--storage", str(root / "runs"), "--data-dir", str(data), *SMALL]
    environment = environment_of(root) | {"XDG_CONFIG_HOME": str(root / "theirs")}
    command = [sys.executable, str(ROOT / "launch.py"), *words]
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True)
    file = root / "runs" / "run" / "run.json"
    plan = json.loads(file.read_text())
    (first,), (trial_id,) = plan["trials"], plan["trial_ids"]
    plan |= {"trials": [first, first | {"seed": 1}], "trial_ids": [trial_id, f"{trial_id[:-1]}1"]}
    plan["request"]["seeds"] = [0, 1]
    file.write_text(json.dumps(plan))
    run = RunDirectory(file.parent)
    add_small_files(run, trial_id)
    return run


def add_small_files(run: RunDirectory, trial_id: str) -> None:
    """Add files that only some runs have: a heartbeat, the rates of a search, deploy cards."""
    beat = {"epoch": 1, "share": 0.5, "seconds": 1.0}
    (run.trial(trial_id) / HEARTBEAT_NAME).write_text(json.dumps(beat))
    row = {"model": "ast", "learning_rate": 0.1, "pretrained": False, "limit_train_batches": 1}
    rates = {"scale": "nano", "strategy": "lora", "lora_targets": "all-linear", "dataset": "tiny", "epochs": 1}
    content = {**rates, "found": {"ast": 0.1}, "table": [row]}
    (run.path / learning_rates.FILE).write_text(json.dumps(content))
    costs = [
        RuntimeCost(runtime, 0.5, 2, (Latency(1, 1.0, 2.0, 10), Latency(2, 1.0, 2.0, 10)), 1.0, 1, 1)
        for runtime in TITLES
    ]
    Deployment((DeployCard(trial_id, 1.0, "a CPU", tuple(costs)),)).write(run.path)


def environment_of(root: Path) -> dict[str, str]:
    """The environment of a launch whose caches and keys are below `root`."""
    return {**os.environ, "SOUSAPHONE_CACHE": str(root / "cache"), "XDG_CONFIG_HOME": str(root / "config")}


def json_files(run: RunDirectory) -> list[Path]:
    """The JSON files that this program reads of a run; those of Ray are read by Ray, under a seal."""
    known = {"run.json", "trial.json", "driver.json", "baselines.json", "rates.json", "manifest.json"}
    known |= {HEARTBEAT_NAME, DEPLOYMENT_NAME}
    return sorted(path for path in run.path.rglob("*.json") if path.name in known)


@dataclass(frozen=True)
class Readers:
    """What reads a run, without training; `figures` draws them as well, which takes seconds."""

    run: RunDirectory
    other: Findings  # an intact run, to compare with

    def named(self, figures: bool = False) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield the name of each reader and the function, which raises a UserError where a file is wrong."""
        yield "report", self._files if figures else self._report
        yield "resume", lambda: self._job("--resume", "--name", self.run.path.name)
        yield "extend", lambda: self._job("--extend", "--seeds", "7", "--name", self.run.path.name)
        yield "promote", lambda: self._job("--promote", str(self.run.path), "--name", "promoted")
        yield "list", lambda: runs_command(["list", "--storage", str(self.run.path.parent)])
        yield "small files", self._small_files
        yield "compare with", lambda: check_sections([comparison(self.other, self.run.path).section])
        yield "compare with files", lambda: comparison(self.other, self.run.path / "report" / "trials")

    def _report(self) -> None:
        found = read_run(self.run.path)
        check_sections(sections(found))
        files = {"report.html": b"", "plots/x.png": b"", "trials/x.json": b""}
        write_files(self.run.report, files, replaced=("plots/*.png", "trials/*.json"))
        table = to_csv(comparison_table(found.trials, found.cpu_ms, found.adapter_bytes))
        check_text(table + epochs_csv(found.trials).decode())

    def _files(self) -> None:
        found = read_run(self.run.path)
        check_sections([comparison(found, self.other.path).section])
        files = make_files(found, with_sounds=False)
        check_page(files["report.html"].decode())
        for name, content in files.items():
            if not name.endswith((".png", ".parquet", ".html")):
                check_text(content.decode())

    def _job(self, *words: str) -> None:
        options = parse([*words, "--plan", "--no-timing", "--storage", str(self.run.path.parent)], "launch.py")
        job = make_job(options, make_sweep)
        if job.left() and Path(job.trials[0].data_dir or "-").is_dir():
            machine = Capacity(({"CPU": 2.0, "GPU": 0.0},))
            resources: Resources = pick_resources(job.request, job.sweep, machine)
            prepare(job, options, resources, machine.trials_at_once(resources, 2), check_text)

    def _small_files(self) -> None:
        path = self.run.path
        assert DriverWatch.begin(path).limits
        for trial in (path / "trials").glob("*"):
            read_heartbeat(trial)
        if self.run.exists:
            self.run.read_foreign_plan()  # a driver does so before it writes
            write_status(self.run)
            if self.run.status_page.is_file():  # nothing is written in the place of a directory
                check_text(self.run.status_page.read_text())
        if (path / learning_rates.FILE).exists():
            learning_rates.read("--rates", str(path), ["ast"])


def fault(read: Callable[[], object], seconds: float = SECONDS, megabytes: float = MEGABYTES) -> str | None:
    """Return what is wrong with a reading; None if it ended, or raised a UserError, within these limits."""
    before, start = _peak_megabytes(), time.monotonic()
    try:
        with _time_limit(seconds):
            try:
                read()
            except UserError as error:
                check_text(str(error))
    except Overtime:
        return f"it took more than {seconds:g} s"
    except BaseException:  # a SystemExit or pyo3's panic as well
        return traceback.format_exc()
    if _peak_megabytes() - before > megabytes:
        return f"the peak memory grew by {_peak_megabytes() - before:.0f} MB in {time.monotonic() - start:.1f} s"
    return None


def launch_fault(root: Path, command: list[str]) -> str | None:
    """Run a command; return its output if it has a traceback, a wrong exit code, control characters, or exceeds the
    limits of a launch; else None."""
    with (root / "output").open("w+b") as output:
        process = subprocess.Popen(
            command, cwd=root, env=environment_of(root), stdout=output, stderr=output, start_new_session=True
        )
        # Not getrusage, whose peak includes that of this process, from before the exec.
        watched, start, peak = psutil.Process(process.pid), time.monotonic(), 0
        while (code := process.poll()) is None and time.monotonic() - start < LAUNCH_SECONDS:
            with suppress(psutil.Error):
                peak = max(peak, watched.memory_info().rss)
            time.sleep(0.05)
        if code is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    problems = {
        f"more than {LAUNCH_SECONDS:g} s": code is None,
        "a traceback": "Traceback (most recent call last)" in text,
        "control characters": CONTROLS.search(text) is not None,
        f"exit code {code}": code not in (None, 0, 1, 2),
        "too much memory": peak / 2**20 > LAUNCH_MEGABYTES,
    }
    found = [name for name, wrong in problems.items() if wrong]
    return f"{', '.join(found)}\n{text[-3000:]}" if found else None


def files_below(directory: Path) -> dict[str, bytes]:
    """The content of all files below a directory."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def copied(run: RunDirectory, path: Path) -> RunDirectory:
    """Replace `path` by a copy of the run."""
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(run.path, path, symlinks=True)
    return RunDirectory(path)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Overtime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
