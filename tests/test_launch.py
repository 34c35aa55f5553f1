"""The command line: wrong input is one line with exit code 2, and writes no file."""

from __future__ import annotations

import ast
import errno
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import launch
from sousaphone.cli.command import EXIT_FAILED, EXIT_INPUT, EXIT_OK
from sousaphone.errors import UserError, printable
from sousaphone.runs.directory import SWEEP_COMMAND, RunDirectory
from sousaphone.sweep.ray_process import start_ray

ROOT = Path(__file__).resolve().parents[1]
MakeSousa = Callable[..., Path]


@pytest.fixture
def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ray_starts: list[str]
) -> Callable[..., str]:
    """`refused(*arguments)` returns the error line of a refused command line and checks that nothing was written."""
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOUSA_DATASET_PATH", raising=False)
    storage = tmp_path / "runs"

    def call(*arguments: str) -> str:
        try:
            code = launch.main([*arguments, "--storage", str(storage)])
        except SystemExit as end:
            code = int(str(end.code))
        assert code == EXIT_INPUT
        assert not storage.exists()
        lines = capsys.readouterr().err.strip().splitlines()
        (line,) = (line for line in lines if not line.startswith("decoding "))  # progress
        assert "error: " in line
        return line

    return call


def test_recorded_command_has_the_options_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[str] = []
    monkeypatch.setattr(launch, "run", lambda options, prog, command: commands.append(command) or EXIT_OK)
    words = ["--dataset", "tiny", "--name", "a b"]
    launch.main(words, "sousaphone sweep")
    monkeypatch.setattr(sys, "argv", ["/some/where/launch.py", *words])
    launch.main()
    assert [shlex.split(each) for each in commands] == 2 * [[*SWEEP_COMMAND, *words]]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--models", "wavlm"], ["--models 'wavlm'", "ast"]),
        (["--dataset", "huge"], ["--dataset", "'huge'"]),
        (["--data-dir", "/no/such/place"], ["--data-dir '/no/such/place'"]),
        (["--epochs", "0"], ["epochs=0", "1 or more"]),
        (["--epochs", "many"], ["--epochs", "'many'"]),
        (["--set", "micro_batch"], ["micro_batch", "key=value"]),
        (["--set", "micro_batch=x"], ["micro_batch='x'"]),
        (["--set", "batchsize=4"], ["'batchsize'", "clip_seconds"]),
        (["--set", "clip_seconds=99"], ["clip_seconds=99", "10.0 or less"]),
        (["--weights", "ast=/no/such/file"], ["/no/such/file"]),
        (["--weights", "wavlm=/x"], ["--weights 'wavlm=/x'", "unknown", "ast"]),
        (["--models", "ast", "--weights", "beats=/x"], ["--weights 'beats=/x'", "sweep", "ast"]),
        (["--weights", "some"], ["--weights 'some'", "NAME=PATH"]),
        (["--config", "nope"], ["--config 'nope'", "backbones"]),
        (["--budget", "8"], ["--budget", "--config search"]),
        (["--config", "rates", "--sampler", "qmc"], ["--sampler", "--config search"]),
        (["--config", "search", "--budget", "0"], ["--budget '0'", "4h"]),
        (["--config", "search", "--budget", "1"], ["--budget '1'", "from 2"]),
        (["--config", "search", "--budget", "4 parsecs"], ["--budget '4 parsecs'", "4h"]),
        (["--config", "search", "--budget", "none"], ["--budget 'none'", "4h"]),
        (["--config", "search", "--sampler", "grid"], ["--sampler", "tpe"]),
        (["--config", "search", "--augment", "both"], ["--augment"]),
        (["--config", "search", "--set", "patience=3"], ["patience"]),
        (["--config", "search", "--promote", "x"], ["--promote", "--config"]),
        (["--from", "nothing"], ["--from nothing"]),
        (["--from", "x", "--rates", "y"], ["--from and --rates"]),
        (["--from", "x", "--resume"], ["--from", "--resume"]),
        (["--name", "a/b"], ["--name 'a/b'"]),
        (["--seeds", "1", "1"], ["twice"]),
        (["--gpus-per-trial", "99"], ["--gpus-per-trial 99", "this machine has"]),
        (["--cpus-per-trial", "9999"], ["--cpus-per-trial 9999", "this machine has"]),
        (["--cpus-per-trial", "inf"], ["--cpus-per-trial inf", "1 or more"]),
        (["--gpus-per-trial", "nan"], ["--gpus-per-trial nan", "0 or more"]),
        (["--max-concurrent", "0"], ["--max-concurrent 0", "1 or more"]),
        (["--promote", ""], ["--promote: ''"]),
        (["--storage", ""], ["--storage: ''"]),
        (["--data-dir", " "], ["--data-dir: ' '"]),
        (["--resume", "--name", "nothing"], ["--resume", "is not a run directory"]),
        (["--extend", "--name", "nothing"], ["--extend", "is not a run directory"]),
        (["--resume", "--extend"], ["--resume and --extend"]),
        (["--retry-failed"], ["--retry-failed", "--resume"]),
        (["--trial-time-limit", "two"], ["--trial-time-limit 'two'", "90m"]),
        (["--time-limit", "0s"], ["--time-limit '0s'"]),
        (["--time-limit", ""], ["--time-limit: ''"]),
        (["--stall-timeout", "soon"], ["--stall-timeout 'soon'"]),
        (["--promote", "/no/such/run"], ["--promote /no/such/run", "is not a run directory"]),
        (["--promote", "x", "--test-also", "/y"], ["--promote", "--test-also"]),
        (["--set", "learning_rate=inf"], ["learning_rate=inf"]),
        (["--set", "noise_snr_db=nan"], ["noise_snr_db=nan"]),
        (["--weights", "ast="], ["--weights 'ast='", "ast=PATH"]),
        (["--promote", "x", "--models", "ast"], ["--promote", "--models"]),
    ],
)
def test_wrong_argument_is_one_line_before_ray_is_started(
    arguments: list[str], parts: list[str], refused: Callable[..., str], ray_starts: list[str]
) -> None:
    line = refused(*arguments)
    assert all(part in line for part in parts), line
    assert not ray_starts


@pytest.mark.parametrize("name", ["take\tone", "caf\udce9"])
def test_path_that_run_json_cannot_name_is_refused(
    name: str, small_sousa: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    shutil.copytree(small_sousa, tmp_path / name)
    line = refused("--data-dir", str(tmp_path / name))
    assert printable(name) in line


def _without_column(root: Path) -> None:
    labels = root / "labels" / "samples.parquet"
    pd.read_parquet(labels).drop(columns="rudiment_slug").to_parquet(labels)


def _unknown_slug(root: Path) -> None:
    labels = root / "labels" / "samples.parquet"
    pd.read_parquet(labels).assign(rudiment_slug="moonwalk").to_parquet(labels)


def _outside(root: Path) -> None:
    labels = root / "labels" / "samples.parquet"
    pd.read_parquet(labels).assign(audio_path=lambda t: "../" + t.audio_path).to_parquet(labels)


def _missing_audio(root: Path) -> None:
    next((root / "audio").glob("*/*.flac")).unlink()


def _unreadable_audio(root: Path) -> None:
    next((root / "audio").glob("*/*.flac")).write_bytes(b"fLaC, but not really")


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (_without_column, "rudiment_slug"),
        (_unknown_slug, "moonwalk"),
        (_outside, ".."),
        (_missing_audio, ".flac"),
        (_unreadable_audio, ".flac"),
    ],
)
def test_damaged_data_set_is_one_line(
    damage: Callable[[Path], None], part: str, refused: Callable[..., str], make_sousa: MakeSousa, tmp_path: Path
) -> None:
    root = make_sousa(tmp_path / "sousa")
    damage(root)
    assert part in refused("--models", "ast", "--scale", "nano", "--data-dir", str(root))


def test_too_few_players_for_a_validation_split_are_one_line(
    refused: Callable[..., str], make_sousa: MakeSousa, tmp_path: Path
) -> None:
    splits = {"train_profile_ids": ["a"], "val_profile_ids": [], "test_profile_ids": ["b"]}
    root = make_sousa(tmp_path / "sousa", players=["a", "b"], splits=splits)
    assert "validation" in refused("--scale", "nano", "--data-dir", str(root))


def test_directory_without_a_data_set_is_one_line(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert str(tmp_path / "photos") in refused("--scale", "nano", "--data-dir", str(tmp_path / "photos"))


@pytest.mark.parametrize("model", ["ast", "htsat", "beats", "efficientat"])
def test_weights_file_of_the_wrong_format_is_one_line(
    model: str, refused: Callable[..., str], small_sousa: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "weights.pt"
    wrong.write_bytes(b"these are no weights")
    line = refused("--models", model, "--weights", f"{model}={wrong}", "--data-dir", str(small_sousa))
    assert str(wrong) in line


def test_used_name_without_resume_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("unrelated")
    assert launch.main(["--name", "mine", "--storage", str(tmp_path)]) == EXIT_INPUT
    assert "--name mine" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_storage_that_is_not_a_directory_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert launch.main(["--storage", str(tmp_path / "file" / "runs")]) == EXIT_INPUT
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"--storage {tmp_path}" in line


def test_run_in_use_by_another_driver_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from sousaphone.runs.directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).held(): print('held', flush=True); time.sleep(60)"
    )
    run = RunDirectory(tmp_path / "run")
    holder = subprocess.Popen([sys.executable, "-c", code, str(run.path)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert run.is_live()
        with pytest.raises(UserError, match=f"process {holder.pid}"), run.held():
            pass
    finally:
        holder.kill()
        holder.wait()
    assert not run.is_live()


def test_closed_pipe_is_not_an_error(small_sousa: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)  # as `| head` does
    command = [sys.executable, str(ROOT / "launch.py"), "--plan", "--no-timing", "--data-dir", str(small_sousa)]
    done = subprocess.run([*command, "--storage", str(tmp_path)], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_plan_starts_no_ray(
    small_sousa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_starts: list[str]
) -> None:
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(tmp_path / "cache"))
    words = ["--models", "ast", "--scale", "nano", "--data-dir", str(small_sousa), "--storage", str(tmp_path / "runs")]
    assert launch.main([*words, "--plan", "--no-timing"]) == EXIT_OK
    assert not ray_starts


def test_failed_start_of_ray_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise Exception("The current node timed out during startup.\nAdvice.")

    monkeypatch.setattr("ray.init", fail)
    with pytest.raises(UserError, match=r"The current node timed out during startup\.$"):
        start_ray({}, dashboard=False)


def test_launch_imports_only_this_project_and_no_large_package() -> None:
    tree = ast.parse((ROOT / "launch.py").read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {*sys.stdlib_module_names, "sousaphone", "tune_configs", "analysis"}
    heavy = (
        "import sys, launch; from sousaphone.cli.sweep import build_parser; build_parser().format_help(); "
        "print({'torch', 'ray', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_process_that_drives_ray_imports_no_torch() -> None:
    code = "import sys, sousaphone.sweep.experiment; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("started", [True, False])
def test_full_disk_is_one_line_that_names_the_resume_command_of_a_started_run(
    started: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full:
        directory = RunDirectory(tmp_path)

        @property
        def remarks(self) -> list[str]:
            if started:
                (tmp_path / "run.json").touch()
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "trials"))

    monkeypatch.setattr(launch, "make_job", lambda *_: Full())
    assert launch.main(["--dataset", "tiny"]) == (EXIT_FAILED if started else EXIT_INPUT)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'trials'}: No space left on device" in line
    assert ("--resume" in line) is started
