"""SoundFonts: the snare drums of a file."""

import struct
from pathlib import Path

import numpy as np
import pytest

from sousaphone.data.synthetic.soundfonts import SAMPLE_RATE, Kit, all_kits, builtin_kits, read_kits, snare
from sousaphone.errors import UserError

# Centroid (Hz) and length (s) of TimGM6mb's snares by another synthesizer: TinySoundFont 0.3.7, note 38, drum bank,
# velocity 127, held half a second.
REFERENCE = {
    "standard": (862, 0.19),
    "room": (545, 0.19),
    "power": (727, 0.62),
    "electronic": (1796, 0.20),
    "tr808": (3344, 0.11),
    "brush": (2161, 0.08),
    "orchestra": (864, 0.19),
}


def write_font(
    path: Path, bank: int = 128, key: int = 38, hertz: float = 500.0, zone: dict[int, int] | None = None
) -> Path:
    """Write a SoundFont of one preset and one sample: half a second of a sine, at its own pitch on `key`."""
    wave = np.sin(2 * np.pi * hertz * np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE)
    samples = np.round(20_000 * wave).astype("<i2").tobytes() + bytes(92)

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack("<I", len(content)) + content

    generators = b"".join(struct.pack("<Hh", *item) for item in {58: key, **(zone or {})}.items())
    count = 2 + len(zone or {})
    tables = {
        b"phdr": struct.pack("<20sHHHIII", b"My Kit", 3, bank, 0, 0, 0, 0)
        + struct.pack("<20sHHHIII", b"", 0, 0, 1, 0, 0, 0),
        b"pbag": struct.pack("<HHHH", 0, 0, 2, 0),
        b"pgen": struct.pack("<HBBHH", 43, key, key, 41, 0) + bytes(4),
        b"inst": struct.pack("<20sH20sH", b"", 0, b"", 1),
        b"ibag": struct.pack("<HHHH", 0, 0, count, 0),
        b"igen": generators + struct.pack("<HH", 53, 0) + bytes(4),
        b"shdr": struct.pack("<20sIIIIIBbHH", b"", 0, len(wave), 0, len(wave), SAMPLE_RATE, key, 0, 0, 1) + bytes(46),
    }
    pdta = b"pdta" + b"".join(chunk(name, content) for name, content in tables.items())
    content = b"sfbk" + chunk(b"LIST", b"sdta" + chunk(b"smpl", samples)) + chunk(b"LIST", pdta)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)
    return path


def pitch(wave: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(wave, 8 * SAMPLE_RATE)).argmax() / 8)


def test_built_in_snares_equal_another_synthesizers():
    assert [kit.name for kit in builtin_kits()] == list(REFERENCE)
    for kit in builtin_kits():
        wave = snare(kit)
        power = np.abs(np.fft.rfft(wave, SAMPLE_RATE)) ** 2
        centroid, seconds = REFERENCE[kit.name]
        assert (np.arange(len(power)) * power).sum() / power.sum() == pytest.approx(centroid, rel=0.25), kit.name
        assert len(wave) / SAMPLE_RATE == pytest.approx(seconds, abs=0.03), kit.name
        assert np.sum(wave**2) == pytest.approx(1, rel=1e-4)


def test_built_in_kits_are_distinct():
    waves = [snare(kit) for kit in builtin_kits()]
    for number, wave in enumerate(waves):
        assert all(len(wave) != len(other) or np.abs(wave - other).max() > 1e-3 for other in waves[:number])


def test_kit_has_the_names_of_its_file_and_preset(tmp_path):
    kits = read_kits(write_font(tmp_path / "Field Drum.sf2"))
    assert kits == (Kit("Field Drum", "mykit", 3, tmp_path / "Field Drum.sf2"),)
    assert pitch(snare(kits[0])) == pytest.approx(500, abs=3)


@pytest.mark.parametrize(
    ("zone", "hertz"),
    [({51: 12}, 1000), ({52: -100}, 472), ({48: 60}, 500), ({56: 0}, 500)],
    ids=["an octave up", "a semitone down", "softer", "no scale"],
)
def test_zone_tunes_its_sample(tmp_path, zone, hertz):
    (kit,) = read_kits(write_font(tmp_path / "a.sf2", zone=zone))
    assert pitch(snare(kit)) == pytest.approx(hertz, abs=4)


def test_envelope_falls_by_its_decay(tmp_path):
    # 100 dB in a second (0 timecents), down to silence.
    (kit,) = read_kits(write_font(tmp_path / "a.sf2", zone={36: 0, 37: 1000}))
    wave = snare(kit)
    early, late = (np.abs(wave[round(t * SAMPLE_RATE) :][:400]).max() for t in (0.1, 0.3))
    assert 20 * np.log10(early / late) == pytest.approx(20, abs=1)


def test_invalid_soundfonts_are_rejected(tmp_path):
    wrong = tmp_path / "wrong.sf2"
    wrong.write_bytes(b"hello" * 100)
    cut = tmp_path / "cut.sf2"
    cut.write_bytes(builtin_kits()[0].path.read_bytes()[:5000])
    cases = {
        tmp_path / "absent.sf2": "cannot be read",
        wrong: "not a SoundFont",
        cut: "not a SoundFont",
        write_font(tmp_path / "piano.sf2", bank=0): "has no snare",
        write_font(tmp_path / "bass.sf2", key=36): "has no snare",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            all_kits([path])
        assert "\n" not in str(error.value)
    twice = write_font(tmp_path / "TimGM6mb.sf2")
    with pytest.raises(UserError, match="'TimGM6mb' is already used"):
        all_kits([twice])
