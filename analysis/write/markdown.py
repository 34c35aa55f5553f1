"""Blocks as Markdown, for a pull request or an appendix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.write.blocks import Banner, Block, Code, Items, Picture, Section, Sounds, Table, Terms, Text
from sousaphone.text import counted
from sousaphone.text import escape_markdown as escape


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the whole document. All text is escaped, so that an error's text is shown verbatim."""
    parts = [f"# {escape(title)}"]
    for section in sections:
        if section.blocks:
            parts += [f"## {escape(section.heading)}"] if section.heading else []
            parts += [text for block in section.blocks if (text := _block(block))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Text(text):
            return escape(text)
        case Banner(text):
            return f"> **{escape(text)}**"
        case Items(items):
            return _list(map(escape, items))
        case Terms(pairs):
            return _list(f"**{escape(name)}**: {escape(text)}" for name, text in pairs)
        case Code(text):
            fence = "```"
            while fence in text:
                fence += "`"
            return f"{fence}\n{text}\n{fence}"
        case Table(head, rows, _, extra):
            kept = [place for place, name in enumerate(head) if name not in extra]
            lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
            table = "\n".join(f"| {' | '.join(line[place] for place in kept)} |" for line in lines)
            return f"{table}\n\nMore columns in report.html: {'; '.join(extra)}." if extra else table
        case Picture():
            picture = f"![{escape(block.heading)}](plots/{block.name}.png)\n\n" if block.png is not None else ""
            return f"### {escape(block.heading)}\n\n{picture}{escape(block.caption)}"
        case Sounds(heading, clips):
            return f"{escape(heading)}: {counted(len(clips), 'clip')} in report.html"


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
