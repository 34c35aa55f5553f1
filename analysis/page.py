"""report.html: one self-contained page; it asks the network for nothing and runs no script but plotly's."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import plotly.offline

from analysis.charts import charts
from analysis.findings import COLUMNS, Findings
from analysis.summary import NONE_YET, PARTIAL, READABLE, WITHOUT, cells

# The browser itself refuses what a page that stands alone must not do.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1100px; margin: 2rem auto;
       padding: 0 1.25rem; }
h1 { margin: 0 0 .5rem; } h2 { margin: 2.25rem 0 .5rem; border-bottom: 1px solid #ddd; }
.banner { background: #fff3e6; border-left: 5px solid #d55e00; padding: .7rem 1rem; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid #e6e6e6; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2), .words th, .words td { text-align: left; }
.words td:last-child, .partial td:last-child { white-space: normal; overflow-wrap: anywhere; }
.partial th:last-child, .partial td:last-child { text-align: left; min-width: 15rem; }
th { background: #f6f6f6; } tbody tr:hover { background: #fafafa; }
code, pre { background: #f6f6f6; font-size: .9rem; } pre { padding: .7rem 1rem; overflow-x: auto; }
dt { font-weight: 600; } dd { margin: 0 0 .3rem 1.2rem; overflow-wrap: anywhere; }
footer { margin-top: 3rem; color: #666; font-size: .85rem; }
"""


def page(found: Findings) -> str:
    """The page's HTML. Every text that comes from outside is escaped."""
    text = html.escape
    parts = [f"<h1>{text(found.name)}</h1>"]
    if found.banner:
        parts.append(f'<p class="banner">{text(found.banner)}</p>')
    if found.promotion:
        parts.append(f"<p>{text(found.promotion)}</p>")
    parts += [f"<p>{text(found.state)}</p>", f"<p>{text(found.verdict)}</p>", "<h2>Results</h2>"]
    if found.ranked:
        parts.append(_table(READABLE, [cells(trial) for trial in found.ranked]))
    else:
        parts.append(f"<p>{NONE_YET}</p>")
    if found.partial:
        rows = [(*cells(trial), trial.why) for trial in found.partial]
        parts += ["<h2>Partial results</h2>", f"<p>{text(found.partial_note)}</p>", _table(PARTIAL, rows, "partial")]
    if found.further:
        head, further, words = found.further
        parts += ["<h2>Further tests</h2>", f"<p>{text(words)}.</p>", _table(head, further)]
    if found.without_results:
        without = [(trial.trial_id, trial.status, trial.why) for trial in found.without_results]
        parts += ["<h2>Without results</h2>", _table(WITHOUT, without, "words")]
    if found.next_steps:
        parts.append("<h2>Go on with</h2>")
        for words, line in found.next_steps:
            parts += [f"<p>{text(words)}</p>", *([f"<pre>{text(line)}</pre>"] if line else [])]
    for number, (heading, figure) in enumerate(charts(found.trials)):
        settings = {"displaylogo": False, "responsive": True}
        chart = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"chart{number}", config=settings)
        parts.append(f"<h2>{text(heading)}</h2>{chart}")
    parts += ["<h2>How to read the columns</h2>", _definitions(COLUMNS.items())]
    parts += ["<h2>What this does not show</h2>", _list(found.limits)]
    parts += ["<h2>What ran</h2>", _definitions(found.facts)]
    if found.notes:
        parts += ["<h2>Notes</h2>", _list(found.notes)]
    parts.append(f"<footer>Written {text(found.written)}. Every column is in comparison_table.csv.</footer>")
    head = (
        '<meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(found.name)}</title><style>{_STYLE}</style>"
        f"<script>{plotly.offline.get_plotlyjs()}</script>"
    )
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "numbers") -> str:
    titles = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f'<table class="{kind}"><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in pairs) + "</dl>"


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"
