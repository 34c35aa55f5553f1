"""`sousaphone predict`: any recordings, in any format, with one line for each that cannot be decoded."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sousaphone.cli.command import EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED, EXIT_OK
from sousaphone.cli.predict import main

ROOT = Path(__file__).parents[2]
FORMS = [
    *(
        ("WAV", "PCM_16", 44_100, 2),
        ("WAV", "PCM_24", 96_000, 1),
        ("WAV", "FLOAT", 22_050, 6),
        ("FLAC", None, 48_000, 2),
    ),
    *(
        ("MP3", None, 44_100, 1),
        ("OGG", "VORBIS", 32_000, 2),
        ("WAV", "PCM_U8", 8_000, 1),
        ("WAV", "PCM_16", 44_101, 1),
    ),
    *(("AIFF", "PCM_16", 44_100, 2), ("W64", "PCM_16", 44_100, 2), ("RF64", "PCM_16", 44_100, 1)),
]


def noise(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * rate), channels))


@pytest.fixture
def takes(tmp_path: Path) -> Path:
    """A folder of recordings in every form, in two levels, with a hidden file and one of another type."""
    for number, (format, subtype, rate, channels) in enumerate(FORMS):
        folder = tmp_path / "takes" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        suffix = {"MP3": "mp3", "OGG": "ogg", "FLAC": "flac"}.get(format, "wav")
        path = folder / f"{number:02d}.{suffix}"
        soundfile.write(path, noise(1.2, rate, channels), rate, format=format, subtype=subtype)
    (tmp_path / "takes" / ".hidden.wav").write_bytes(b"")
    (tmp_path / "takes" / "notes.txt").write_text("none")
    return tmp_path / "takes"


def predicted(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    found: list[dict] = json.loads(capsys.readouterr().out)
    return found


def test_every_form_of_audio_is_named(model: Path, takes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model), str(takes), "--format", "json"]) == EXIT_OK
    found = predicted(capsys)
    assert [Path(each["file"]).name[:2] for each in found] == [
        "00",
        "02",
        "04",
        "06",
        "08",
        "10",
        "01",
        "03",
        "05",
        "07",
        "09",
    ]
    for each in found:
        (segment,) = each["segments"]
        assert each["seconds"] == pytest.approx(1.2, abs=0.06)  # MP3 adds samples
        assert len(segment["top"]) == 5
        assert segment["top"][0] == {"rudiment": segment["rudiment"], "confidence": segment["confidence"]}


def test_formats_hold_the_same_answers(
    model: Path, takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(takes / "0" / "00.wav")
    outputs = {}
    for form in ("table", "csv", "json", "audacity"):
        top = [] if form == "audacity" else ["--top", "3"]
        assert main([str(model), path, "--format", form, *top]) == EXIT_OK
        outputs[form] = capsys.readouterr().out
        assert main([str(model), path, "--format", form, *top, "--output", str(tmp_path / form)]) == EXIT_OK
        assert (tmp_path / form).read_text() == outputs[form]
        assert capsys.readouterr().out == ""
    (segment,) = json.loads(outputs["json"])[0]["segments"]
    (row,) = csv.DictReader(io.StringIO(outputs["csv"]))
    assert (row["file"], row["rudiment"]) == (path, segment["rudiment"])
    assert float(row["confidence_3"]) == pytest.approx(segment["top"][2]["confidence"])
    start, end, text = outputs["audacity"].rstrip("\n").split("\t")
    assert (float(start), float(end)) == pytest.approx((segment["start"], segment["end"]))
    for name in (text, outputs["table"]):
        assert segment["rudiment"].replace("_", " ") in name


@pytest.mark.parametrize(("options", "names"), [([], 3), (["--top", "1"], 1), (["--top", "5"], 5)])
def test_table_has_as_many_rudiments_as_asked_for(
    options: list[str], names: int, model: Path, takes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(model), str(takes / "0" / "00.wav"), *options]) == EXIT_OK
    assert capsys.readouterr().out.count("%") == names


def test_label_track_has_no_further_rudiments(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(model), "take.wav", "--format", "audacity", "--top", "3"])
    assert ended.value.code == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "--top has no effect with --format audacity" in line


def test_weights_of_a_merged_model_are_refused(merged: Path, takes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(merged), str(takes), "--weights", str(takes / "notes.txt")]) == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "leave weights out" in line


def test_table_shows_the_folders_of_recordings_with_the_same_name(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / player / "take.wav" for player in ("anna", "ben")]
    for path in paths:
        path.parent.mkdir()
        soundfile.write(path, noise(1.2, 16_000), 16_000)
    assert main([str(model), str(tmp_path)]) == EXIT_OK
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == list(map(str, paths))


def test_undecided_answers_are_marked(model: Path, takes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(takes / "0" / "00.wav")
    for limit, undecided in (("1", True), ("0", False)):
        assert main([str(model), path, "--min-confidence", limit, "--format", "json"]) == EXIT_OK
        assert predicted(capsys)[0]["segments"][0]["undecided"] is undecided
        assert main([str(model), path, "--min-confidence", limit]) == EXIT_OK
        assert ("undecided" in capsys.readouterr().out) is undecided


def test_model_without_a_usable_confidence_is_reported(
    model: Path, takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for limit in (0.5, 1.0):
        folder = shutil.copytree(model, tmp_path / f"model{limit}")
        config = json.loads((folder / "config.json").read_text())
        config["calibration"]["undecided_below"] = limit
        (folder / "config.json").write_text(json.dumps(config))
        assert main([str(folder), str(takes / "0" / "00.wav")]) == EXIT_OK
        assert ("--min-confidence" in capsys.readouterr().err) is (limit == 1.0)


def test_broken_files_are_named_and_the_others_continue(
    model: Path, takes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (takes / "1" / "03.flac").read_bytes()
    broken = {"cut.flac": whole[: len(whole) // 2], "text.wav": b"no sound", "empty.mp3": b""}
    for name, content in broken.items():
        (takes / name).write_bytes(content)
    assert main([str(model), str(takes), "--format", "csv"]) == EXIT_FAILED
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1 + len(FORMS)
    lines = [line for line in captured.err.splitlines() if "error:" in line]
    assert len(lines) == len(broken)
    assert all(any(name in line for line in lines) for name in broken)
    assert main([str(model), str(takes / "text.wav")]) == EXIT_INPUT
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_picture_is_drawn(model: Path, tmp_path: Path) -> None:
    soundfile.write(
        tmp_path / "long.wav", np.concatenate([noise(3, 8_000), 0 * noise(3, 8_000), noise(3, 8_000)]), 8_000
    )
    soundfile.write(tmp_path / "silent.wav", 0 * noise(1, 8_000), 8_000)
    for name in ("long", "silent"):
        assert main([str(model), str(tmp_path / f"{name}.wav"), "--plot", str(tmp_path / f"{name}.png")]) == EXIT_OK
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere.wav"], "nowhere.wav"),
        (["{empty}"], "empty"),
        (["{take}", "--top", "0"], "--top"),
        (["{take}", "--min-confidence", "2"], "--min-confidence"),
        (["{take}", "--gate", "-3"], "--gate"),
        (["{take}", "--hop", "60"], "hop"),
        (["{take}", "{take}", "--plot", "x.png"], "--plot"),
        (["{take}", "{take}", "--format", "audacity"], "audacity"),
        (["{take}", "--output", "/nowhere/x.csv"], "--output"),
        (["{take}", "--output", "{take}"], "--output"),
        (["{take}", "--plot", "{empty}"], "--plot"),
        (["{take}", "--plot", "x.jpg"], "x.jpg"),
        (["{take}", "--weights", "~no-such-user/x.pt"], "~no-such-user"),
        (["/dev/zero"], "/dev/zero"),
        (["x" * 300], "xxx"),
        (["{take}", "--weights", "/nowhere.pt"], "/nowhere.pt"),
    ],
)
def test_wrong_input_is_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    soundfile.write(tmp_path / "take.wav", noise(0.5, 8_000), 8_000)
    (tmp_path / "empty").mkdir()
    places = {"take": tmp_path / "take.wav", "empty": tmp_path / "empty"}
    assert main([str(model), *(word.format(**places) for word in arguments)]) == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert (tmp_path / "take.wav").read_bytes().startswith(b"RIFF")


def test_names_that_are_not_text_are_possible(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate([b"\xff\xfe.wav", b"\x1b[31m.wav", b"two\nlines.wav", b'"a",b.wav']):
        take = tmp_path / str(number) / os.fsdecode(name)
        take.parent.mkdir()
        soundfile.write(os.fsencode(take), noise(0.5, 8_000), 8_000)
        picture = tmp_path / "picture.png"
        assert main([str(model), str(take), "--plot", str(picture)]) == EXIT_OK
        assert len(capsys.readouterr().out.splitlines()) == 2
        assert picture.stat().st_size
        for form, read in (("json", json.loads), ("csv", lambda text: list(csv.DictReader(io.StringIO(text))))):
            assert main([str(model), str(take), "--format", form, "--output", str(tmp_path / form)]) == EXIT_OK
            (found,) = read((tmp_path / form).read_bytes().decode())
            assert found["file"] == os.fsencode(take).decode(errors="replace").replace("\ufffd", "?")


def test_pipes_are_read_and_written(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "take.wav", noise(0.5, 8_000), 8_000)
    os.mkfifo(tmp_path / "in")
    writer = threading.Thread(target=lambda: (tmp_path / "in").write_bytes((tmp_path / "take.wav").read_bytes()))
    writer.start()
    assert main([str(model), str(tmp_path / "in"), "--format", "json"]) == EXIT_OK
    writer.join()
    assert predicted(capsys)[0]["seconds"] == 0.5
    os.mkfifo(tmp_path / "out")
    reader = os.open(tmp_path / "out", os.O_RDONLY | os.O_NONBLOCK)
    assert main([str(model), str(tmp_path / "take.wav"), "--format", "json", "--output", str(tmp_path / "out")]) == 0
    assert json.loads(os.read(reader, 2**16))
    os.close(reader)
    assert (tmp_path / "out").is_fifo()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sousaphone", "predict", *arguments]


def test_names_are_printed_if_they_cannot_be_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "take.wav", noise(0.5, 8_000), 8_000)
    assert main([str(model), str(tmp_path / "take.wav"), "--format", "csv", "--output", "/proc/x.csv"]) == EXIT_INPUT
    found = capsys.readouterr()
    assert "take.wav" in found.out
    assert "--output /proc/x.csv" in found.err.splitlines()[-1]


def test_standard_input_is_read(model: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "take.flac", noise(0.5, 8_000), 8_000)
    content = (tmp_path / "take.flac").read_bytes()
    done = subprocess.run(
        command(str(model), "-", "--format", "json"), cwd=ROOT, input=content, capture_output=True, check=True
    )
    (found,) = json.loads(done.stdout)
    assert found["seconds"] == 0.5
    assert main([str(model), str(tmp_path / "take.flac"), "--format", "json"]) == EXIT_OK


def test_endless_input_without_audio_is_refused(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/zero").open(encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert main([str(model), "-"]) == EXIT_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "standard input" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_pipe_that_does_not_fit_on_the_disk_is_named_and_the_others_continue(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "take.wav", noise(0.5, 8_000), 8_000)
    monkeypatch.setattr("sys.stdin", (tmp_path / "take.wav").open(encoding="latin-1"))
    with Path("/dev/full").open("r+b", 0) as full:
        monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda **_: full)
        code = main([str(model), "-", str(tmp_path / "take.wav"), "--min-confidence", "0", "--format", "json"])
    assert code == EXIT_FAILED
    output, errors = capsys.readouterr()
    assert [Path(each["file"]).name for each in json.loads(output)] == ["take.wav"]
    (line,) = errors.splitlines()
    assert "standard input" in line
    assert "TMPDIR" in line


def test_picture_does_not_replace_the_output(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(tmp_path / "take.wav", noise(0.5, 8_000), 8_000)
    target = str(tmp_path / "out")
    assert main([str(model), str(tmp_path / "take.wav"), "--output", target, "--plot", target]) == EXIT_INPUT
    assert "--plot" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("error")
def test_picture_of_a_name_without_glyphs_is_drawn_without_warning(model: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "\u65e5\U0001f941.wav", noise(0.5, 8_000), 8_000)
    assert main([str(model), str(tmp_path / "\u65e5\U0001f941.wav"), "--plot", str(tmp_path / "x.png")]) == EXIT_OK


@pytest.mark.parametrize(("format", "subtype", "rate", "channels"), FORMS)
def test_every_form_of_audio_is_read_from_a_pipe(
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    format: str,
    subtype: str | None,
    rate: int,
    channels: int,
) -> None:
    content = io.BytesIO()
    soundfile.write(content, noise(1.2, rate, channels), rate, format=format, subtype=subtype)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.getvalue())))
    assert main([str(model), "-", "--format", "json"]) == EXIT_OK
    (found,) = predicted(capsys)
    assert found["seconds"] == pytest.approx(1.2, abs=0.06)


def test_interruption_is_one_line(model: Path, tmp_path: Path) -> None:
    fifo = tmp_path / "endless.wav"
    soundfile.write(fifo, noise(600, 8_000), 8_000)
    done = subprocess.Popen(
        command(str(model), *[str(fifo)] * 200), cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and "torch" not in Path(f"/proc/{done.pid}/maps").read_text():
        time.sleep(0.1)
    time.sleep(1.0)
    os.kill(done.pid, signal.SIGINT)
    _, errors = done.communicate()
    assert done.returncode == EXIT_INTERRUPTED
    assert "interrupted" in errors
    assert "Traceback" not in errors
