"""An attack on a whole run: hostile column names and categories, and every page, twin and mode that it leaves."""

import json
import os
import stat
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from builders import FLOW_TOML, loans_with_noise

from flows.retrain import retrain

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.flow]

COLUMN = "<img src=x onerror=alert(1)>\"'|`{{ 7 * 191 }}"
CATEGORY = "</td><script>alert(2)</script>\x1b[31m\r\n# =cmd|' /C calc'!A0"


class Elements(HTMLParser):
    """Names of the elements and attributes of a page, and the texts in between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, str] = {}
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name: value or "" for name, value in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory) -> tuple[Path, dict]:
    """A run on data whose names and categories are markup, under a umask that hides nothing."""
    folder = tmp_path_factory.mktemp("attacked")
    hostile = pl.when(pl.col("loan_id") % 3 == 0).then(pl.lit(CATEGORY)).otherwise("region")
    frame = loans_with_noise().with_columns(hostile.alias("region"), hostile.alias(COLUMN), pl.lit("x").alias("sex"))
    (folder / "data").mkdir()
    frame.write_parquet(folder / "data" / "loans.parquet")
    toml = FLOW_TOML.replace('segments = ["region"]', f'segments = ["region", {json.dumps(COLUMN)}]')
    toml = toml.replace("[features.ratios]", 'protected = ["sex"]\n[features.ratios]')
    toml = toml.replace('column = "bad"', f'column = "bad"\nevent = {json.dumps(COLUMN)}')
    (folder / "mini.toml").write_text(toml)
    umask = os.umask(0)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CROSSRISK_HOME", str(folder))
            patch.delenv("CROSSRISK_DATA", raising=False)
            result = retrain(config=str(folder / "mini.toml"), overrides=["lineup.contenders=['source_logistic']"])
    finally:
        os.umask(umask)
    return folder, result


def test_no_element_and_no_attribute_of_any_page_comes_from_data(attacked):
    folder, result = attacked
    pages = sorted((folder / "work" / "mini" / "runs" / result["run_id"]).glob("*.html"))
    assert {page.name for page in pages} >= {"report.html", "memo.html", "model_card.html", "validation.html"}
    seen = 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        found = Elements(text)
        assert {"img", "script", "iframe", "object", "link", "base", "form"}.isdisjoint(found.tags), page.name
        assert not [name for name in found.attributes if name.startswith("on")], page.name
        seen += COLUMN in " ".join(found.words)
    assert seen >= 3


def test_no_twin_in_markdown_holds_markup(attacked):
    folder, result = attacked
    for twin in (folder / "work" / "mini" / "runs" / result["run_id"]).glob("*.md"):
        text = twin.read_text(encoding="utf-8")
        assert "<img" not in text
        assert "<script" not in text
        assert "\r" not in text


def test_nobody_else_reaches_rows_of_customers_and_the_server_reaches_the_model(attacked):
    folder, result = attacked
    work = folder / "work" / "mini"
    assert {stat.S_IMODE((work / name).stat().st_mode) for name in ("stages", "runs")} == {0o700}
    assert {path.name for path in work.iterdir()} == {"stages", "runs"}
    for path in Path(result["paths"]["model"]).rglob("*"):
        assert path.stat().st_mode & stat.S_IROTH, path
