"""What is wrong with a data set: everything that can be found in one go, in words, each with what to do."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from sousaphone.config import FEW_PLAYERS
from sousaphone.data.cache.decode import in_threads, read_samples
from sousaphone.data.dataset import Dataset
from sousaphone.data.readers import hub
from sousaphone.data.readers.audio_files import UnreadableAudioError, find_files, open_clips
from sousaphone.data.readers.folder import find_recordings
from sousaphone.data.readers.labels import canonical_slugs, check_labels
from sousaphone.data.readers.parquet import place_in_shard
from sousaphone.data.readers.paths import local_path
from sousaphone.data.readers.raw_labels import NUMBERS, TEXT, RawLabels
from sousaphone.data.readers.sousa import LABELS, read_dataset
from sousaphone.data.splits import read_splits
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from sousaphone.text import counted, first_few, tracked

SILENT_DB = -60.0  # re full scale; a clip without a louder sample is silent
_CLIPPED_PAIRS = 10  # neighbouring samples at full scale; a single loud peak has none
_FULL_SCALE = 1 - 2**-15
_MOST = 20  # findings of one kind that are spelt out


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, in a line; `error` where training on it would mislead or fail, else a warning."""

    text: str
    error: bool = False


@dataclass(frozen=True)
class Checked:
    """What a check found."""

    dataset: Dataset | None  # None where it cannot be read at all
    findings: tuple[Finding, ...]  # errors first
    # Of each clip (s), from its audio where that was decoded, else from the labels.
    seconds: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))


def check(source: Path | str, audio: bool = True) -> Checked:
    """Look for all that is wrong with a data set. Where it cannot be read, what lies in its directory is
    looked at all the same.

    Args:
        source: whatever `read_dataset` reads.
        audio: decode every clip.
    """
    try:
        dataset = read_dataset(source)
    except UserError as error:
        refusals = dict.fromkeys([str(error), *_further_refusals(source)])
        heard: list[Finding] = []
        if audio:
            root, paths = _recordings(source)
            sounds = _listen(root, paths)
            broken = [root / path for path, sound in zip(paths, sounds, strict=True) if isinstance(sound, str)]
            if isinstance(error, UnreadableAudioError) and error.path in broken:  # it is among what was heard
                del refusals[str(error)]
            heard = _unheard(sounds)
        return Checked(None, tuple(dict.fromkeys([*(Finding(text, error=True) for text in refusals), *heard])))
    findings = list(_label_findings(dataset))
    seconds = dataset.clips.duration_sec
    if audio:
        sounds = _listen(dataset.root, dataset.clips.audio_path.tolist())
        findings += _unheard(sounds)
        findings += _sound_findings(dataset, sounds)
        seconds = pd.Series([sound.seconds if isinstance(sound, _Sound) else float("nan") for sound in sounds])
    return Checked(dataset, tuple(sorted(findings, key=lambda finding: not finding.error)), seconds)


def _further_refusals(source: Path | str) -> Iterator[str]:
    """What else is wrong with the labels of SOUSA's local layout, each looked at for itself."""
    root = local_path(source)
    try:
        raw = pd.read_parquet(root / LABELS)
    except (OSError, ValueError):
        return
    path = root / LABELS
    columns = {ours: theirs for ours, theirs in {**TEXT, **NUMBERS}.items() if theirs in raw}
    text = {ours: raw[theirs].dropna().astype(str) for ours, theirs in columns.items() if ours in TEXT}
    looks: list[Callable[[], object]] = [lambda: read_splits(root / "splits.json")]
    needed = [name for name in ("sample_id", "player", "audio_path") if name in columns]
    if needed:
        known = raw.assign(**{TEXT["rudiment"]: SLUGS[0]})  # rudiments are looked at apart
        named = {**columns, "rudiment": TEXT["rudiment"]}
        looks.append(lambda: check_labels(RawLabels(root, path, known, named, tuple(needed))))
    if "rudiment" in text:
        looks.append(lambda: canonical_slugs(text["rudiment"].unique(), path))
    if "audio_path" in text:
        looks.append(lambda: find_files(root, text["audio_path"].tolist(), LABELS))
    for look in looks:
        try:
            look()
        except UserError as error:
            yield str(error)


def _recordings(source: Path | str) -> tuple[Path, tuple[str, ...]]:
    """The audio files of a data set that cannot be read; none for a CSV file, which may lie among others' files."""
    root = local_path(source)
    if hub.is_word(Path(source).as_posix()):
        return root, ()
    try:
        return root, find_recordings(root).audio_paths if root.is_dir() else ()
    except UserError:
        return root, ()


def _label_findings(dataset: Dataset) -> Iterator[Finding]:
    clips = dataset.clips
    yield from (Finding(note) for note in dataset.notes)
    names = pd.Series(clips.player.unique())
    alike = names[names.str.casefold().duplicated(keep=False)]
    if len(alike):
        yield Finding(
            f"{counted(len(alike), 'player')} told apart by capital letters alone ({first_few(sorted(alike))}) may "
            "stand in different splits; spell each name in one way"
        )
    players = clips.player[clips.split == "test"].nunique()
    if players < FEW_PLAYERS:
        yield Finding(
            f"only {counted(players, 'test player')}: what is measured on so few says little about others; have "
            f"{FEW_PLAYERS} or more"
        )
    absent = [slug for slug in SLUGS if slug not in set(clips.rudiment)]
    if absent:
        yield Finding(
            f"{len(absent)} of the {len(SLUGS)} rudiments have no clips ({first_few(absent)}); they count as classes "
            "all the same: add recordings of them"
        )
    heard = set(clips.rudiment[clips.split == "train"])
    unheard = sorted(set(clips.rudiment) - heard)
    if unheard:
        yield Finding(
            f"{counted(len(unheard), 'rudiment')} without training clips ({first_few(unheard)}): no model can know "
            "them; move players to train, or add recordings"
        )
    tempo = clips.tempo_bpm
    odd = ~((tempo > 0) & np.isfinite(tempo))
    if tempo.notna().any() and odd.any():
        yield Finding(
            f"{odd.sum()} of {len(clips)} clips have no tempo, NaN or not above 0 ({first_few(clips.sample_id[odd])}); "
            "results by tempo leave them out: fill in tempo_bpm"
        )


@dataclass(frozen=True)
class _Sound:
    """A decoded clip: its length, its highest sample in dB of full scale, whether it is clipped, a hash of samples."""

    seconds: float
    peak_db: float
    clipped: bool
    digest: bytes


def _listen(root: Path, audio_paths: Sequence[str]) -> list[_Sound | str]:
    """Each clip's sound, or what is wrong with its file."""
    heard = in_threads(_hear, _open_each(root, audio_paths))
    return list(tracked(heard, f"decoding {len(audio_paths):,} clips", len(audio_paths)))


def _open_each(root: Path, audio_paths: Sequence[str]) -> Iterator[tuple[str, Path | BytesIO | str]]:
    """`open_clips`, with the error instead of the audio of what a shard does not give."""
    for _, group in groupby(audio_paths, key=lambda path: place_in_shard(path)[0]):
        left = list(group)
        while left:
            given = 0
            try:
                for clip in open_clips(root, left):
                    given += 1
                    yield clip
                break
            except UserError as error:
                yield left[given], str(error)
                left = left[given + 1 :]


def _hear(clip: tuple[str, Path | BytesIO | str]) -> _Sound | str:
    name, source = clip
    if isinstance(source, str):
        return source
    try:
        samples, rate = read_samples(name, source)
    except UserError as error:
        return str(error)
    level = np.abs(samples)
    full = level >= _FULL_SCALE
    digest = hashlib.blake2b(repr((rate, samples.shape)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(samples).data)
    return _Sound(
        seconds=len(samples) / rate,
        peak_db=float(20 * np.log10(max(level.max(), 1e-10))),
        clipped=int((full[1:] & full[:-1]).sum()) >= _CLIPPED_PAIRS,
        digest=digest.digest(),
    )


def _unheard(sounds: Sequence[_Sound | str]) -> list[Finding]:
    """Files that cannot be decoded, one finding each."""
    texts = list(dict.fromkeys(sound for sound in sounds if isinstance(sound, str)))
    findings = [Finding(text, error=True) for text in texts[:_MOST]]
    if len(texts) > _MOST:
        findings.append(Finding(f"{len(texts) - _MOST} more files cannot be decoded; copy them again", error=True))
    return findings


def _sound_findings(dataset: Dataset, sounds: Sequence[_Sound | str]) -> Iterator[Finding]:
    rows = [row for row, sound in enumerate(sounds) if isinstance(sound, _Sound)]
    clips = dataset.clips.iloc[rows].reset_index(drop=True)
    heard = [sound for sound in sounds if isinstance(sound, _Sound)]
    silent = np.array([sound.peak_db < SILENT_DB for sound in heard], dtype=bool)
    clipped = np.array([sound.clipped for sound in heard], dtype=bool)
    if silent.any():
        yield Finding(
            f"{counted(int(silent.sum()), 'clip')} silent, no sample above {SILENT_DB:g} dB of full scale "
            f"({first_few(clips.sample_id[silent])}); record again, or remove from the labels",
            error=True,
        )
    if clipped.any():
        yield Finding(
            f"{counted(int(clipped.sum()), 'clip')} clipped, with runs of samples at full scale "
            f"({first_few(clips.sample_id[clipped])}); record or render with less gain"
        )
    clips["digest"] = [sound.digest for sound in heard]
    twice = clips[~silent & clips.digest.duplicated(keep=False)]
    kinds: dict[str, list[str]] = {}
    for _, same in twice.groupby("digest", sort=False):
        if same.rudiment.nunique() > 1:
            kind = "under different rudiments"
        elif same.split.nunique() > 1:
            kind = "in different splits"
        else:
            kind = "under different ids"
        kinds.setdefault(kind, []).append(" = ".join(same.sample_id))
    for kind, groups in kinds.items():
        yield Finding(
            f"{counted(len(groups), 'recording')} more than once {kind}, sample for sample ({first_few(groups)}); keep "
            "one clip of each",
            error=kind != "under different ids",
        )
