"""Blocks as one self-contained page, which makes no network requests and runs no script but plotly's."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence

import plotly.offline

from analysis.write.blocks import Banner, Block, Code, Items, Picture, Section, Sound, Sounds, Table, Terms, Text

# Makes the browser reject network requests and scripts from other hosts.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; media-src data:"
)
_NUMBER = re.compile(r"[-+−±<>~≈]?\s?[\d.,]+( ?(%|s|ms|kB|MB|M|k))?|[-+−]?[\d.]+ ?%? to [-+−]?[\d.]+ ?%?|\d+ of \d+|–|")
# plotly's buttons for a reader of a report; one of the others opens a web site.
_BUTTONS = [["toImage", "zoom2d", "pan2d", "resetScale2d"]]
_CHART_SETTINGS = {"displaylogo": False, "responsive": True, "modeBarButtons": _BUTTONS}

_STYLE = """
html { -webkit-text-size-adjust: 100%; }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1240px; margin: 2rem auto;
       padding: 0 1.25rem; overflow-wrap: anywhere; }
h1 { margin: 0 0 .5rem; } h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid #ddd; } h3 { margin: 2rem 0 .3rem; }
.banner { background: #fff3e6; border-left: 5px solid #d55e00; padding: .7rem 1rem; font-weight: 600; }
.caption { color: #555; font-size: .9rem; margin: .2rem 0 1.2rem; max-width: 60rem; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; overflow-wrap: normal; }
th, td { text-align: left; padding: .3rem .7rem; border-bottom: 1px solid #e6e6e6; white-space: nowrap;
         vertical-align: top; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.wordy { white-space: normal; overflow-wrap: anywhere; min-width: 15rem; }
.extra { display: none; } .columns[open] + .scroll .extra { display: table-cell; }
.columns { font-size: .9rem; } summary { cursor: pointer; }
th { background: #f6f6f6; } tbody tr:hover { background: #fafafa; }
code, pre { background: #f6f6f6; font-size: .9rem; }
pre { padding: .7rem 1rem; overflow-x: auto; margin: .4rem 0 1rem; }
dt { font-weight: 600; } dd { margin: 0 0 .3rem 1.2rem; }
figure { margin: 0; } .sounds { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; margin: .3rem 0 1rem; }
.sounds figcaption { font-size: .85rem; color: #555; } audio { height: 2.2rem; width: 16rem; max-width: 100%; }
img { max-width: 100%; }
footer { margin-top: 3rem; color: #666; font-size: .85rem; }
@media (max-width: 600px) { body { margin: 1rem auto; padding: 0 .8rem; } h1 { font-size: 1.5rem; }
                            ul { padding-left: 1.2rem; } th, td { padding: .3rem .45rem; }
                            .name { white-space: normal; min-width: 7rem; } }
"""


def to_html(title: str, sections: Sequence[Section], footer: str) -> str:
    """Return the page. All text is escaped."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        if not section.blocks:
            continue
        parts += [f"<h2>{html.escape(section.heading)}</h2>"] if section.heading else []
        parts += map(_block, section.blocks)
    parts.append(f"<footer>{html.escape(footer)}</footer>")
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<script>{plotly.offline.get_plotlyjs()}</script>"
    )
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _block(block: Block) -> str:
    text = html.escape
    match block:
        case Text(words):
            return f"<p>{text(words)}</p>"
        case Banner(words):
            return f'<p class="banner">{text(words)}</p>'
        case Items(items):
            return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"
        case Terms(pairs):
            return "<dl>" + "".join(f"<dt>{text(a)}</dt><dd>{text(b)}</dd>" for a, b in pairs) + "</dl>"
        case Code(lines):
            return f"<pre>{text(lines)}</pre>"
        case Table():
            return _table(block)
        case Picture():
            return _picture(block)
        case Sounds(heading, clips):
            players = "".join(map(_player, clips))
            return f'<h3>{text(heading)}</h3><div class="sounds">{players}</div>'


def _picture(picture: Picture) -> str:
    if picture.chart is not None:
        shown = picture.chart.to_html(
            full_html=False, include_plotlyjs=False, div_id=picture.name, config=_CHART_SETTINGS
        )
    else:
        shown = f'<img alt="{html.escape(picture.heading)}" src="data:image/png;base64,{_base64(picture.png or b"")}">'
    heading, caption = html.escape(picture.heading), html.escape(picture.caption)
    shown = f'<div class="scroll"><div style="min-width: {picture.min_width}px">{shown}</div></div>'
    return f'<h3>{heading}</h3>{shown}<p class="caption">{caption}</p>'


def _player(sound: Sound) -> str:
    source = f"data:audio/mpeg;base64,{_base64(sound.content)}"
    caption = f"<figcaption>{html.escape(sound.label)}</figcaption>"
    return f'<figure>{caption}<audio controls preload="none" src="{source}"></audio></figure>'


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _table(table: Table) -> str:
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.head)
    kinds = []
    for name, column in zip(table.head, columns, strict=True):
        number = bool(column) and all(map(_NUMBER.fullmatch, column))
        kind = "wordy" if name in table.wordy else "number" if number else "name"
        kinds.append(f"{kind} extra" if name in table.extra else kind)

    def line(cells: Sequence[str], tag: str) -> str:
        pairs = zip(cells, kinds, strict=True)
        return "<tr>" + "".join(f'<{tag} class="{kind}">{html.escape(cell)}</{tag}>' for cell, kind in pairs) + "</tr>"

    names = html.escape("; ".join(table.extra))
    switch = f'<details class="columns"><summary>More columns: {names}</summary></details>' if names else ""
    body = "".join(line(row, "td") for row in table.rows)
    content = f"<table><thead>{line(table.head, 'th')}</thead><tbody>{body}</tbody></table>"
    return f'{switch}<div class="scroll">{content}</div>'
