"""The command line: every wrong input is one clear line and exit code 2, and touches nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import launch
from sousaphone.runs.directory import RunDirectory
from sousaphone.sweep.ray_process import _start

ROOT = Path(__file__).resolve().parents[1]
MakeSousa = Callable[..., Path]


@pytest.fixture
def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ray_starts: list[str]
) -> Callable[..., str]:
    """`refused(*arguments)`: the one line of a refused command line; nothing may be left in the storage."""
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SOUSA_DATASET_PATH", raising=False)
    storage = tmp_path / "runs"

    def call(*arguments: str) -> str:
        try:
            code = launch.main([*arguments, "--storage", str(storage)])
        except SystemExit as end:
            code = int(str(end.code))
        assert code == launch.EXIT_INPUT
        assert not storage.exists()
        said = capsys.readouterr().err.strip().splitlines()
        (line,) = (line for line in said if not line.startswith("decoding "))  # that is progress
        assert "error: " in line
        return line

    return call


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "wavlm"], "'wavlm' is unknown; choose from: ast"),
        (["--dataset", "huge"], "invalid choice: 'huge'"),
        (["--data-dir", "/no/such/place"], "'/no/such/place' does not exist"),
        (["--epochs", "0"], "epochs=0 is below its limit; give 1 or more"),
        (["--epochs", "many"], "invalid int value: 'many'"),
        (["--set", "micro_batch"], "not of the form key=value"),
        (["--set", "micro_batch=x"], "micro_batch='x' is not a number"),
        (["--set", "batchsize=4"], "'batchsize' is not a setting; the settings are: clip_seconds"),
        (["--set", "clip_seconds=99"], "above its limit; give 10.0 or less"),
        (["--weights", "ast=/no/such/file"], "no such file or directory"),
        (["--weights", "wavlm=/x"], "backbone 'wavlm' is unknown"),
        (["--models", "ast", "--weights", "beats=/x"], "backbone 'beats' is not in this sweep"),
        (["--config", "nope"], "'nope' is unknown; choose one of: backbones"),
        (["--name", "a/b"], "give a plain name"),
        (["--seeds", "1", "1"], "planned twice"),
        (["--gpus-per-trial", "99"], "--gpus-per-trial 99 is too much: this machine has"),
        (["--cpus-per-trial", "9999"], "--cpus-per-trial 9999 is too much: this machine has"),
        (["--cpus-per-trial", "inf"], "--cpus-per-trial inf is out of range; give 1 or more"),
        (["--gpus-per-trial", "nan"], "--gpus-per-trial nan is out of range; give 0 or more"),
        (["--max-concurrent", "0"], "give 1 or more"),
        (["--promote", ""], "is not a run directory"),
        (["--resume", "--name", "nothing"], "is not a run directory"),
        (["--extend", "--name", "nothing"], "is not a run directory"),
        (["--resume", "--extend"], "exclude each other"),
        (["--retry-failed"], "belongs to --resume"),
        (["--trial-time-limit", "two"], "--trial-time-limit 'two' is no duration; give one such as 45s, 90m, 2h"),
        (["--time-limit", "0s"], "--time-limit '0s' is no duration"),
        (["--stall-timeout", "soon"], "is no duration"),
        (["--promote", "/no/such/run"], "is not a run directory"),
        (["--promote", "x", "--test-also", "/y"], "takes --test-also from the best trial"),
        (["--stall-timeout", ""], "--stall-timeout '' is no duration"),
        (["--set", "learning_rate=inf"], "learning_rate=inf is not a finite number"),
        (["--set", "noise_snr_db=nan"], "noise_snr_db=nan is not a finite number"),
        (["--weights", "ast="], "--weights 'ast=' names no file"),
        (["--promote", "x", "--models", "ast"], "takes --models from the best trial"),
    ],
)
def test_a_wrong_argument_is_one_clear_line_before_ray_is_started(
    arguments: list[str], said: str, refused: Callable[..., str], ray_starts: list[str]
) -> None:
    assert said in refused(*arguments)
    assert not ray_starts


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
    ("spoil", "said"),
    [
        (_without_column, "rudiment_slug"),
        (_unknown_slug, "moonwalk"),
        (_outside, "leaves the data directory"),
        (_missing_audio, ".flac"),
        (_unreadable_audio, ".flac"),
    ],
)
def test_a_spoilt_data_set_is_one_clear_line(
    spoil: Callable[[Path], None], said: str, refused: Callable[..., str], make_sousa: MakeSousa, tmp_path: Path
) -> None:
    root = make_sousa(tmp_path / "sousa")
    spoil(root)
    assert said in refused("--models", "ast", "--scale", "nano", "--data-dir", str(root))


def test_a_split_that_cannot_be_carved_is_one_clear_line(
    refused: Callable[..., str], make_sousa: MakeSousa, tmp_path: Path
) -> None:
    splits = {"train_profile_ids": ["a"], "val_profile_ids": [], "test_profile_ids": ["b"]}
    root = make_sousa(tmp_path / "sousa", players=["a", "b"], splits=splits)
    assert "validation" in refused("--scale", "nano", "--data-dir", str(root))


def test_a_directory_that_is_no_data_set_is_one_clear_line(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert "is not a SOUSA data set" in refused("--scale", "nano", "--data-dir", str(tmp_path / "photos"))


@pytest.mark.parametrize("model", ["ast", "htsat", "beats", "efficientat"])
def test_a_weights_file_of_the_wrong_format_is_one_clear_line(
    model: str, refused: Callable[..., str], small_sousa: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "weights.pt"
    wrong.write_bytes(b"these are no weights")
    line = refused("--models", model, "--weights", f"{model}={wrong}", "--data-dir", str(small_sousa))
    assert str(wrong) in line


def test_a_used_name_without_resume_is_refused_and_stays_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear reader")
    assert launch.main(["--name", "mine", "--storage", str(tmp_path)]) == launch.EXIT_INPUT
    assert "is in use; give another name" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_storage_that_is_no_directory_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert launch.main(["--storage", str(tmp_path / "file" / "runs")]) == launch.EXIT_INPUT
    assert "is not a directory that can be written to" in capsys.readouterr().err


def test_a_run_in_use_by_a_living_driver_is_refused(tmp_path: Path) -> None:
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
        with pytest.raises(launch.UserError, match=f"in use by process {holder.pid}"), run.held():
            pass
    finally:
        holder.kill()
        holder.wait()
    assert not run.is_live()


def test_a_reader_that_has_seen_enough_is_no_error(small_sousa: Path, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)  # as `| head` does
    command = [sys.executable, str(ROOT / "launch.py"), "--plan", "--no-timing", "--data-dir", str(small_sousa)]
    done = subprocess.run([*command, "--storage", str(tmp_path)], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_plan_starts_no_ray(
    small_sousa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_starts: list[str]
) -> None:
    monkeypatch.setenv("SOUSAPHONE_CACHE", str(tmp_path / "cache"))
    words = ["--models", "ast", "--scale", "nano", "--data-dir", str(small_sousa), "--storage", str(tmp_path / "runs")]
    assert launch.main([*words, "--plan", "--no-timing"]) == launch.EXIT_OK
    assert not ray_starts


def test_a_ray_that_cannot_start_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise Exception("The current node timed out during startup.\nAdvice.")

    monkeypatch.setattr("ray.init", fail)
    said = "Ray cannot start on this machine: The current node timed out during startup.$"
    with pytest.raises(launch.UserError, match=said):
        _start({}, dashboard=False)


def test_launch_imports_from_its_own_rooms_alone_and_nothing_heavy_at_its_top() -> None:
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


def test_the_process_that_drives_ray_needs_no_torch() -> None:
    code = "import sys, sousaphone.sweep.experiment; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
