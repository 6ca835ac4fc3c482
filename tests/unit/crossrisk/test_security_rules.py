"""Attacks by SQL of a portfolio: a rule speaks about the columns of a row, and reads nothing else."""

import socket
import threading

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossrisk.config import load_portfolio
from crossrisk.errors import ConfigError
from crossrisk.limits import MOST_RULE_CHARACTERS
from crossrisk.sql_rules import parse_rule

TOML = """
name = "mini"
as_of = 2024-12-31
data = { path = "loans.parquet", id = "loan_id" }
label = { column = "bad" }
population = { source = "product = 'loan'", target = "product = 'card'" }
features = { numeric = ["income"] }
"""
READS = "read_csv('{file}')"
QUERIES = [
    f"product = (SELECT secret FROM {READS})",
    f"product IN (SELECT * FROM {READS})",
    f"EXISTS (select 1 from {READS})",
    f"product IN (FROM {READS})",
    f"product IN ( \n from {READS})",
    f"product IN (WITH a AS (SELECT * FROM {READS}) SELECT * FROM a)",
    f"product = ANY(SELECT * FROM {READS})",
    "product IN (VALUES ('card'))",
    "product IN (TABLE loans)",
    # upper case of the parser, not of ASCII: a long s is an S, a dotless i an I
    f"product IN (\u017felect * FROM {READS})",
    f"product IN (W\u0131TH a AS (\u017felect * FROM {READS}) \u017felect * FROM a)",
    # a reader of quotes that is not ours would see the query outside of them
    f"product = E'\\' OR product IN (SELECT * FROM {READS}) --'",
    f"product = 'a' OR product = $$ ' $$ OR product IN (SELECT * FROM {READS}) OR product = $$ ' $$",
    f"product = 'a' /* ' */ OR product IN (SELECT * FROM {READS}) /* ' */",
    f"product = 'a' -- '\n OR product IN (SELECT * FROM {READS}) -- '",
    f"`a'` = 'a' OR product IN (SELECT * FROM {READS}) OR `a'` = 'a'",
    "product = 'card'; DROP TABLE loans",
]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("key", ["population.target", "label.grey", "label.known_date"])
def test_a_query_in_a_rule_is_refused_before_polars_sees_it(tmp_path, monkeypatch, query, key):
    (tmp_path / "secret.csv").write_text("key-of-the-house\n1\n")
    (tmp_path / "mini.toml").write_text(TOML)
    seen: list[str] = []
    parse = pl.sql_expr
    monkeypatch.setattr("crossrisk.sql_rules.pl.sql_expr", lambda sql: seen.append(sql) or parse(sql))
    rule = query.replace("{file}", str(tmp_path / "secret.csv"))
    with pytest.raises(ConfigError, match=r"holds no query, but|texts stand in 'single quotes'") as raised:
        load_portfolio(tmp_path / "mini.toml", environ={}, overrides=[f"{key}={rule!r}"])
    assert "house" not in str(raised.value)
    assert rule not in seen


def test_no_address_is_asked_for_while_a_portfolio_is_read(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1.0)
        called = threading.Event()

        def wait() -> None:
            try:
                server.accept()[0].close()
            except TimeoutError:
                return
            called.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.parquet"
        (tmp_path / "mini.toml").write_text(
            TOML.replace("product = 'card'", f"product = (SELECT a FROM read_parquet('{address}'))")
        )
        with pytest.raises(ConfigError, match="holds no query, but"):
            load_portfolio(tmp_path / "mini.toml", environ={})
        waiting.join()
    assert not called.is_set()


@pytest.mark.parametrize(
    "rule",
    [
        "product = 'card'",
        "product IN ('a', 'it''s', 'SELECT', '-- no comment', ';', '$$', 'a\\')",
        '"select" = 1 AND "a--b" = 2 AND "with" = 3',
        "EXTRACT(year FROM opened_on) = 2024",
        "product IS DISTINCT FROM 'card'",
        "opened_on >= DATE '2024-05-01' AND opened_on < DATE '2024-05-01' + INTERVAL '3 months'",
        "NOT (region = 'north' OR region LIKE 'so%')",
        "selected = 1 AND with_card = 1 AND from_date IS NULL",
    ],
)
def test_rules_about_columns_stay_allowed(rule):
    assert parse_rule(rule).meta.root_names()


@given(text=st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])))
def test_any_text_may_stand_in_single_quotes(text):
    literal = text.replace("'", "''")
    held = pl.DataFrame({"x": [text, text + "?"]}).filter(parse_rule(f"x = '{literal}'"))
    assert held["x"].to_list() == [text]


def test_a_rule_that_would_end_the_parser_is_refused_before_it():
    with pytest.raises(ValueError, match=f"at most {MOST_RULE_CHARACTERS:,} are read"):
        parse_rule(" AND ".join(["x = 1"] * 20_000))
    assert parse_rule(" AND ".join(["x=1"] * (MOST_RULE_CHARACTERS // 8))).meta.root_names()
