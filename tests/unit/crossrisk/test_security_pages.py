"""Attacks by names from data: every text of a result, one after the other, is made HTML and Markdown.

No list says which texts come from data: all of them are poisoned, keys too. Where the page can still be drawn, the
poison may stand in it as text and nowhere else.
"""

import copy
import functools
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import jinja2
import pytest
from documents import document, group_line, training_history
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.pages import memo, model_card, reporting
from crossrisk.pages.memo import build_memo, render_memo_html, render_memo_markdown
from crossrisk.pages.model_card import build_card, render_card_html, render_card_markdown
from crossrisk.pages.plots import Estimate, Panel, Whiskers, draw_intervals, draw_seconds
from crossrisk.pages.reporting import render_report, summarise
from crossrisk.pages.texts import environment, markdown_text, visible_text
from crossrisk.pages.training_plots import draw_training

POISON = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>--></style></title>{{ 7 * 191 }}"
LINES = "x\r\n# alert\n| alert | alert |\n[alert](http://alert.example) ![alert](//alert) http://alert.example $alert$"
Json = dict[str, Any]


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def full_document() -> Json:
    result = document(champion=True)
    result["segments"] = [group_line("purpose", "car", 0.6)]
    result["protected"] = [group_line("sex", "f", 0.6)]
    result["reasons"] = result["judged"]["notes"] = result["leaks"]["leaks"] = ["a reason"]
    result["input"]["warnings"] = result["split"]["notes"] = ["a warning"]
    result["labels"]["left_out"] = {"grey": 1}
    return result


def poisoned(part: Any, poison: str) -> Iterator[Any]:
    """Copies of plain data, each with one text or one key replaced; of a list, in its first element."""
    if isinstance(part, str):
        yield poison
    elif isinstance(part, dict):
        for key, value in part.items():
            yield {poison if one == key else one: copy.deepcopy(other) for one, other in part.items()}
            for changed in poisoned(value, poison):
                yield {**part, key: changed}
    elif isinstance(part, list) and part:
        for changed in poisoned(part[0], poison):
            yield [changed, *part[1:]]


def drawn(render: Callable[[Json], str], poison: str) -> list[str]:
    """All pages that can be drawn of a poisoned result and show the poison."""
    pages = []
    for result in poisoned(full_document(), poison):
        try:
            page = render(result)
        except (KeyError, ValueError, TypeError, AttributeError, jinja2.UndefinedError):
            continue  # a word of ours, by which the page is drawn: then there is none
        if "alert" in page:
            pages.append(page)
    return pages


HTML: dict[str, Callable[[Json], str]] = {
    "report": render_report,
    "memo": lambda result: render_memo_html(build_memo(result)),
    "card": lambda result: render_card_html(build_card(result)),
}
MARKDOWN: dict[str, Callable[[Json], str]] = {
    "summary": summarise,
    "memo": lambda result: render_memo_markdown(build_memo(result)),
    "card": lambda result: render_card_markdown(build_card(result)),
}


@pytest.fixture
def quick(monkeypatch):
    """Templates are compiled once, and pictures, which take seconds, left out: they are attacked below."""
    for module in (memo, model_card, reporting):
        monkeypatch.setattr(module, "environment", functools.cache(module.environment))
    for module in (memo, model_card):
        monkeypatch.setattr(module, "markdown_environment", functools.cache(module.markdown_environment))
    names = reporting._pictures(full_document(), reporting.contender_lines(full_document()))
    monkeypatch.setattr(reporting, "_pictures", lambda *_: dict.fromkeys(names))
    monkeypatch.setattr(reporting, "_draw_trainings", lambda *_: {})


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", HTML)
def test_no_element_and_no_attribute_of_a_page_comes_from_data(name):
    ours = {tag for tag, _ in Page(HTML[name](full_document())).elements}
    pages = drawn(HTML[name], POISON)
    assert len(pages) > 30
    for text in pages:
        page = Page(text)
        assert {tag for tag, _ in page.elements} <= ours
        for tag, attributes in page.elements:
            assert not [key for key in attributes if key.startswith("on")]
            # a class is a word of ours, such as a verdict: escaped there too, it can at most name no style
            assert not [value for key, value in attributes.items() if key != "class" and "alert(" in value], tag
        assert "1337" not in text  # 7 * 191: nothing from data is a template


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", MARKDOWN)
def test_no_line_link_heading_or_cell_of_markdown_comes_from_data(name):
    pages = drawn(MARKDOWN[name], LINES + POISON)
    assert len(pages) > 20
    for page in pages:
        assert "\r" not in page
        assert not re.search(r"<[a-z/!]", page)
        assert not re.search(r"(?<!\\)\[alert|https?://alert|(?<!\\)\$alert", page)
        for line in page.splitlines():
            assert not re.match(r"\s*(#|\|)\s*alert", line)


@given(name=st.text())
def test_any_name_is_one_line_of_markdown(name):
    assert len(f"- {markdown_text(name)} -".splitlines()) == 1


@pytest.mark.parametrize("draw", [
    lambda name: draw_intervals([Whiskers(name, "contender", [Estimate(0.6, 0.5, 0.7)])], [Panel("AUC")]),
    lambda name: draw_seconds({name: 1.0}),
    lambda name: draw_training(name, training_history() | {"layers": [name], "method": name}),
])  # fmt: skip
def test_a_name_in_a_picture_is_text(draw):
    name = POISON + "]]><!-- --><foreignObject>&lt;"
    picture = Page(str(draw(name)))
    allowed = {"svg", "defs", "style", "g", "path", "clippath", "rect", "use", "text", "tspan"}
    assert {tag for tag, _ in picture.elements} <= allowed
    assert not [value for _, attributes in picture.elements for value in attributes.values() if "alert" in value]


def test_a_template_never_runs_what_a_name_says():
    shown = environment().from_string("{{ name }}").render(name="{{ 7 * 191 }}<b>")
    assert shown == "{{ 7 * 191 }}&lt;b&gt;"


@given(text=st.text())
def test_shown_on_a_screen_any_text_prints_and_keeps_its_lines(text):
    shown = visible_text(text)
    assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert shown.count("\n") == text.count("\n")
