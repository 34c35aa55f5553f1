"""What a report is made of before it is Markdown or HTML: sections of blocks. All text here is plain; whoever writes it
out escapes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Banner:
    """A paragraph that nobody may overlook."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Terms:
    """A list of names and what they stand for."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Lines to type, or of a log, as they are."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells. `wordy` columns (by name) hold sentences, which may wrap; all others hold numbers or names."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    wordy: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """One figure, twice: as a file for documents and as a chart for the page."""

    name: str  # of the file, without its suffix: plots/NAME.png
    heading: str
    caption: str  # how to read it, in a sentence or two
    png: bytes | None = None  # None where only the page has it
    chart: go.Figure | None = None  # None where only the file is of use


@dataclass(frozen=True)
class Sound:
    """A short clip to listen to: MP3, or WAV where the encoder is missing."""

    label: str
    content: bytes
    mime: str = "audio/mpeg"


@dataclass(frozen=True)
class Sounds:
    """Clips under one heading, to be compared by ear; the Markdown report only names them."""

    heading: str
    clips: Sequence[Sound]


Block = Text | Banner | Items | Terms | Code | Table | Picture | Sounds


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; without blocks it is left out."""

    heading: str
    blocks: Sequence[Block] = field(default_factory=tuple)
