"""Check of a data set: all problems at once, each with a remedy."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from sousaphone.config import FEW_PLAYERS
from sousaphone.data.cache.decode import in_threads, to_mono
from sousaphone.data.dataset import Dataset
from sousaphone.data.inspect.copies import find_copies, fingerprint
from sousaphone.data.readers.audio_files import find_files, open_clips
from sousaphone.data.readers.folder import find_recordings
from sousaphone.data.readers.labels import canonical_slugs, check_labels
from sousaphone.data.readers.parquet import place_in_shard
from sousaphone.data.readers.paths import local_path
from sousaphone.data.readers.raw_labels import NUMBERS, TEXT, RawLabels
from sousaphone.data.readers.samples import read_samples
from sousaphone.data.readers.sousa import LABELS, read_dataset
from sousaphone.data.splits import read_splits
from sousaphone.errors import UserError
from sousaphone.rudiments import SLUGS
from sousaphone.text import counted, first_few, tracked

_SILENT_DB = -60.0  # re full scale; a clip without a louder sample is silent
_CLIPPED_PAIRS = 10  # neighbouring samples at full scale; a single loud peak has none
_FULL_SCALE = 1 - 2**-15
_MAX_FINDINGS = 20  # undecodable files that are listed


@dataclass(frozen=True)
class Finding:
    """One problem in one line; an `error` makes training fail or its results misleading, else it is a warning."""

    text: str
    error: bool = False


@dataclass(frozen=True)
class Repeated:
    """One recording that occurs more than once: the indices of its clips."""

    clips: list[int]
    identical: bool  # in every sample; otherwise re-encoded, shifted or at another level


@dataclass(frozen=True)
class Checked:
    """Result of a check."""

    dataset: Dataset | None  # None if it is unreadable
    findings: tuple[Finding, ...]  # errors first
    # Duration of each clip (s), of its audio if decoded, else from the labels.
    seconds: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    repeated: tuple[Repeated, ...] | None = None  # recordings that occur more than once; None if not decoded


def check(source: Path | str, audio: bool = True) -> Checked:
    """Find all problems of a data set. If it is unreadable, the recordings in its directory are still checked."""
    try:
        dataset = read_dataset(source)
    except UserError as error:
        errors = [Finding(text, error=True) for text in (str(error), *_further_errors(source))]
        if audio:
            root = local_path(source)
            with suppress(UserError):  # none for a CSV file, since others may share its folder
                errors += _undecodable(_decode_all(root, find_recordings(root).audio_paths))
        return Checked(None, tuple(dict.fromkeys(errors)))
    findings = list(_label_findings(dataset))
    seconds, repeated = dataset.clips.duration_sec, None
    if audio:
        sounds = _decode_all(dataset.root, dataset.clips.audio_path.tolist())
        repeated = tuple(_repeated(dataset, sounds))
        findings += [*_undecodable(sounds), *_sound_findings(dataset, sounds), *_repeat_findings(dataset, repeated)]
        seconds = sounds.seconds
    return Checked(dataset, tuple(sorted(findings, key=lambda finding: not finding.error)), seconds, repeated)


def _further_errors(source: Path | str) -> Iterator[str]:
    """Check each part of the labels of SOUSA's local layout on its own."""
    root = local_path(source)
    path = root / LABELS
    try:
        raw = pd.read_parquet(path)
    except (OSError, ValueError):
        return
    raw = raw.loc[:, ~raw.columns.duplicated()]
    valid = raw.assign(**{TEXT["rudiment"]: SLUGS[0]})  # rudiments are checked separately
    columns = {ours: theirs for ours, theirs in {**TEXT, **NUMBERS}.items() if theirs in valid}
    slugs, paths = (raw.get(TEXT[name], pd.Series()).dropna().astype(str) for name in ("rudiment", "audio_path"))
    checks: list[Callable[[], object]] = [
        lambda: read_splits(root / "splits.json"),
        lambda: check_labels(RawLabels(root, path, valid, columns)),
        lambda: canonical_slugs(slugs.unique(), path),
        lambda: find_files(root, paths.tolist(), f"remove their rows from {LABELS}"),
    ]
    for validate in checks:
        try:
            validate()
        except UserError as error:
            yield str(error)


def _label_findings(dataset: Dataset) -> Iterator[Finding]:
    clips = dataset.clips
    yield from (Finding(note) for note in dataset.notes)
    names = pd.Series(clips.player.unique())
    alike = names[names.str.casefold().duplicated(keep=False)]
    if len(alike):
        yield Finding(
            f"{counted(len(alike), 'player')} differ only in capital letters ({first_few(sorted(alike))}) and may be "
            "in different splits; use one spelling per player"
        )
    players = clips.player[clips.split == "test"].nunique()
    if players < FEW_PLAYERS:
        yield Finding(
            f"only {counted(players, 'test player')}: results on so few may not hold for others; provide {FEW_PLAYERS} "
            "or more"
        )
    absent = [slug for slug in SLUGS if slug not in set(clips.rudiment)]
    if absent:
        yield Finding(
            f"{len(absent)} of the {len(SLUGS)} rudiments have no clips ({first_few(absent)}) but remain classes; add "
            "recordings of them"
        )
    untrained = sorted(set(clips.rudiment) - set(clips.rudiment[clips.split == "train"]))
    if untrained:
        yield Finding(
            f"{counted(len(untrained), 'rudiment')} without training clips ({first_few(untrained)}), which no model "
            "can learn; move players to train, or add recordings"
        )
    yield from _scarce(clips)
    tempo = clips.tempo_bpm
    invalid = ~((tempo > 0) & np.isfinite(tempo))
    if tempo.notna().any() and invalid.any():
        yield Finding(
            f"{invalid.sum()} of {len(clips)} clips have no tempo above 0 ({first_few(clips.sample_id[invalid])}); "
            "results by tempo exclude them: fill in tempo_bpm"
        )


def _scarce(clips: pd.DataFrame) -> Iterator[Finding]:
    """Warn of rudiments that only one player, or only one clip, validates or tests."""
    for split, result in (("validation", "epochs and arms are selected"), ("test", "their F1 is decided")):
        counts = clips[clips.split == split].groupby("rudiment").player.agg(["size", "nunique"])
        scarce = counts[counts["nunique"] == 1].sort_values("size")
        if len(scarce):
            single = int((scarce["size"] == 1).sum())
            yield Finding(
                f"{counted(len(scarce), 'rudiment')} with {split} clips of a single player, {single} with a single "
                f"clip ({first_few(scarce.index)}): {result} by the playing of one person; add recordings of others"
            )


def _decode_all(root: Path, audio_paths: Sequence[str]) -> pd.DataFrame:
    """Decode each clip; one row per clip, with an error for a file that is not decodable."""
    sounds = in_threads(_decode, _open_each(root, audio_paths))
    rows = tracked(sounds, f"decoding {len(audio_paths):,} clips", len(audio_paths))
    return pd.DataFrame(rows, columns=["error", "seconds", "peak_db", "clipped", "digest", "fingerprint"])


def _open_each(root: Path, audio_paths: Sequence[str]) -> Iterator[tuple[str, Path | BytesIO | str]]:
    """Yield as `open_clips`, with the error message instead of the source for unreadable clips of a shard."""
    for _, group in groupby(audio_paths, key=lambda path: place_in_shard(path)[0]):
        remaining = list(group)
        while remaining:
            opened = 0
            try:
                for clip in open_clips(root, remaining):
                    opened += 1
                    yield clip
                break
            except UserError as error:
                yield remaining[opened], str(error)
                remaining = remaining[opened + 1 :]


def _decode(clip: tuple[str, Path | BytesIO | str]) -> dict[str, object]:
    name, source = clip
    try:
        if isinstance(source, str):
            raise UserError(source)
        samples, rate = read_samples(name, source)
    except UserError as error:
        return {"error": str(error)}
    level = np.abs(samples)
    full = level >= _FULL_SCALE
    digest = hashlib.blake2b(repr((rate, samples.shape)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(samples).data)
    return {
        "seconds": len(samples) / rate,
        "peak_db": float(20 * np.log10(max(level.max(), 1e-10))),  # re full scale
        "clipped": int((full[1:] & full[:-1]).sum()) >= _CLIPPED_PAIRS,
        "digest": digest.digest(),
        "fingerprint": fingerprint(to_mono(samples), rate),
    }


def _undecodable(sounds: pd.DataFrame) -> list[Finding]:
    texts = sounds.error.dropna().unique().tolist()
    if len(texts) > _MAX_FINDINGS:
        texts[_MAX_FINDINGS:] = [f"{len(texts) - _MAX_FINDINGS} more files cannot be decoded; copy them again"]
    return [Finding(text, error=True) for text in texts]


def _sound_findings(dataset: Dataset, sounds: pd.DataFrame) -> Iterator[Finding]:
    clips = dataset.clips.join(sounds)[sounds.error.isna()]
    silent = clips.sample_id[clips.peak_db < _SILENT_DB]
    clipped = clips.sample_id[clips.clipped.astype(bool)]
    if len(silent):
        yield Finding(
            f"{counted(len(silent), 'clip')} silent, with no sample above {_SILENT_DB:g} dB re full scale "
            f"({first_few(silent)}); record again, or remove from the labels",
            error=True,
        )
    if len(clipped):
        yield Finding(
            f"{counted(len(clipped), 'clip')} clipped, with runs of samples at full scale ({first_few(clipped)}); "
            "record or render with less gain"
        )


def _repeated(dataset: Dataset, sounds: pd.DataFrame) -> Iterator[Repeated]:
    """Find recordings that occur more than once; silent clips are not compared."""
    sounds = sounds[sounds.error.isna() & ~(sounds.peak_db < _SILENT_DB)]
    if sounds.empty:
        return
    for rows in sounds.groupby("digest", sort=False).groups.values():
        if len(rows) > 1:
            yield Repeated(rows.tolist(), identical=True)
    first = sounds.drop_duplicates("digest")
    compared = dataclasses.replace(dataset, clips=dataset.clips.loc[first.index].reset_index(drop=True))
    for group in find_copies(compared, np.stack(first.fingerprint.tolist())):
        yield Repeated(first.index[group].tolist(), identical=False)


def _repeat_findings(dataset: Dataset, repeated: Sequence[Repeated]) -> Iterator[Finding]:
    kinds: dict[tuple[str, bool], list[str]] = {}
    for recording in repeated:
        same = dataset.clips.loc[recording.clips]
        if same.rudiment.nunique() > 1:
            kind = "under different rudiments"
        elif same.split.nunique() > 1:
            kind = "in different splits"
        else:
            kind = "under different ids"
        kinds.setdefault((kind, recording.identical), []).append(" = ".join(same.sample_id))
    for (kind, identical), groups in kinds.items():
        how = "with identical samples" if identical else "re-encoded, shifted or at another level"
        yield Finding(
            f"{counted(len(groups), 'recording')} more than once {kind}, {how} ({first_few(groups)}); keep one clip of "
            "each",
            error=kind != "under different ids",
        )
