"""Content blocks as Markdown, for a pull request or an appendix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from analysis.write.blocks import Banner, Block, Code, Items, Picture, Section, Sounds, Table, Terms, Text


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """The whole document. What comes from outside is escaped: an error's text shows as it is."""
    parts = [f"# {escape(title)}"]
    for section in sections:
        if section.blocks:
            parts += [f"## {escape(section.heading)}"] if section.heading else []
            parts += [text for block in section.blocks if (text := _block(block))]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text as itself in Markdown: on one line, no mark-up, no HTML."""
    return re.sub(r"([\\`*{}\[\]<>|#~&$]|\b_|_\b)", r"\\\1", " ".join(text.split()))


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
        case Table(head, rows):
            lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Picture():
            picture = f"![{escape(block.heading)}](plots/{block.name}.png)\n\n" if block.png is not None else ""
            return f"### {escape(block.heading)}\n\n{picture}{escape(block.caption)}"
        case Sounds(heading, clips):
            return f"{escape(heading)}: {', '.join(escape(clip.label) for clip in clips)} (to be heard in report.html)"


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
