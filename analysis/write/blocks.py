"""Sections and blocks of a report, before they become Markdown or HTML. All text is plain; the writers escape it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Banner:
    """A highlighted warning."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Terms:
    """A list of names and their explanations."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Commands or lines of a log, verbatim."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    wordy: Sequence[str] = ()  # names of columns with sentences, which may wrap; others contain numbers or names
    extra: Sequence[str] = ()  # names of columns that the page shows on demand and Markdown leaves out


@dataclass(frozen=True)
class Picture:
    """One figure, as a PNG for documents and as a chart for the page."""

    name: str  # of the file plots/NAME.png
    heading: str
    caption: str  # how to read it, in a sentence or two
    png: bytes | None = None  # None: only on the page
    chart: go.Figure | None = None  # None: only the PNG
    min_width: int = 350  # pixels; on a narrower screen the chart scrolls in its container


@dataclass(frozen=True)
class Sound:
    """A short audio clip, MP3."""

    label: str
    content: bytes


@dataclass(frozen=True)
class Sounds:
    """Audio clips under one heading; the Markdown report only names them."""

    heading: str
    clips: Sequence[Sound]


Block = Text | Banner | Items | Terms | Code | Table | Picture | Sounds


@dataclass(frozen=True)
class Section:
    """A heading and its blocks; a section without blocks is left out."""

    heading: str
    blocks: Sequence[Block] = ()
