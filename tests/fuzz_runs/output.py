"""Checks of what is printed and written about a run that somebody sent."""

from __future__ import annotations

import html.parser
import re
from typing import Any

import plotly.graph_objects as go
import plotly.offline

from analysis.write.html import to_html
from analysis.write.markdown import to_markdown

# All but the line break, which separates lines, and the tab.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ELEMENT = re.compile(
    r"html|head|meta|title|style|script|body|h[123]|p|ul|li|dl|dt|dd|pre|table|thead|tbody|tr|th|td|details|summary|div|"
    r"figure|figcaption|audio|img|footer"
)
_PLOTLY_ELEMENT = re.compile(r"<br>|</?b>|</?extra>")


def check_text(text: str) -> None:
    """Raise an AssertionError if text has characters that a terminal obeys."""
    found = CONTROLS.search(text)
    assert found is None, repr(text[max(0, found.start() - 80) : found.end() + 80])


def check_page(page: str) -> None:
    """Raise an AssertionError if a report has elements, attributes or addresses that are not the report's own."""
    page = page.replace(plotly.offline.get_plotlyjs(), "")
    _Tags().feed(page)
    check_text(page)


def check_sections(content: list[Any]) -> None:
    """Check sections as a document and as a page."""
    check_text(to_markdown("run", content))
    check_page(to_html("run", content, ""))


def check_chart(chart: go.Figure) -> None:
    """Raise an AssertionError if a text of a chart has elements that are not the report's own: plotly shows links."""
    for text in _texts(chart.to_plotly_json()):
        check_text(text)
        assert "<" not in _PLOTLY_ELEMENT.sub("", text), text
    for trace in chart.data:
        assert "alert" not in (trace.hovertemplate or "")  # %{...} in it is a variable


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for part in parts for text in _texts(part)]


class _Tags(html.parser.HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert _ELEMENT.fullmatch(tag), f"<{tag}>"
        for name, value in attrs:
            assert not name.startswith("on"), f"{name}={value}"
            assert name not in ("href", "action", "srcdoc"), f"{name}={value}"
            assert name != "src" or (value or "").startswith("data:"), f"{name}={value}"
