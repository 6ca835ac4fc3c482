"""Attacks by a portfolio's TOML: folders, suites and sizes of its writer's choice."""

import os
import time
from pathlib import Path

import pytest

from crossrisk.config import load_portfolio
from crossrisk.errors import ConfigError
from crossrisk.limits import MOST_COLUMNS, MOST_DEPTH, MOST_DOCUMENT_BYTES, refuse_depth

TOML = """
name = "mini"
as_of = 2024-12-31
{top}
[data]
path = "loans.parquet"
id = "loan_id"
{data}
[label]
column = "bad"
[population]
source = "product = 'loan'"
target = "product = 'card'"
[features]
numeric = ["income"]
"""


def load(folder: Path, *, name: str = "mini", top: str = "", data: str = "", overrides: tuple[str, ...] = ()):
    toml = TOML.replace("{top}", top).replace("{data}", data).replace('"mini"', f'"{name}"')
    (folder / "mini.toml").write_text(toml)
    return load_portfolio(folder / "mini.toml", environ={"CROSSRISK_HOME": str(folder)}, overrides=overrides)


@pytest.mark.parametrize("name", ["../x", "/etc", "..", "a/b", "a\\\\b", "", "a b", "a\\u0000", "A", "a\\n"])
def test_a_portfolio_is_called_by_a_word_for_folders_are(tmp_path, name):
    with pytest.raises(ConfigError, match="name: expected a lower-case letter"):
        load(tmp_path, name=name)


@pytest.mark.parametrize("folder", ["/tmp", "..", "../x", "a/../../b", "/"])
@pytest.mark.parametrize(
    ("key", "line"), [("work", "work = {}"), ("publish.registry", "publish = {{ registry = {} }}")]
)
def test_a_toml_names_no_folder_to_write_to_outside_its_home(tmp_path, folder, key, line):
    with pytest.raises(ConfigError, match=f"{key} '{folder}' leads outside CROSSRISK_HOME"):
        load(tmp_path, top=line.format(f'"{folder}"'))


def test_who_starts_a_run_may_name_any_folder(tmp_path):
    folders = load(tmp_path, overrides=("work=/somewhere", "publish.registry=/models")).folders
    assert (folders.work, folders.registry) == (Path("/somewhere/mini"), Path("/models/mini"))


@pytest.mark.parametrize("name", ["*", "^.*$", "^income$"])
@pytest.mark.parametrize("key", ["data.id", "data.customer", "label.column", "use.segments", "features.protected"])
def test_no_column_is_called_by_a_pattern_that_means_others(tmp_path, name, key):
    value = f"['{name}']" if key.endswith(("segments", "protected")) else f"'{name}'"
    with pytest.raises(ConfigError, match="for that means many"):
        load(tmp_path, overrides=(f"{key}={value}",))


@pytest.mark.parametrize("suite", ["/etc/x.json", "../x.json", "a/../../x.json"])
def test_a_suite_lies_beside_its_portfolio(tmp_path, suite):
    with pytest.raises(ConfigError, match="does not lie beside this file"):
        load(tmp_path, data=f'expectations = ["{suite}"]')


def test_a_toml_of_hundreds_of_megabytes_is_refused_unread(tmp_path):
    file = tmp_path / "large.toml"
    with file.open("wb") as opened:
        opened.truncate(500 << 20)
    with pytest.raises(ConfigError, match="is larger than 4 MiB"):
        load_portfolio(file, environ={})


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no endless file on this machine")  # noqa: PTH110
def test_an_endless_file_is_read_no_further_than_the_limit():
    with pytest.raises(ConfigError, match="is larger than"):
        load_portfolio(Path("/dev/zero"), environ={})


@pytest.mark.parametrize("deep", ["[" * 100_000, "[" * 200 + "]" * 200, "{a=" * 200 + "1" + "}" * 200])
def test_lists_within_lists_without_end_are_refused_in_words(tmp_path, deep):
    with pytest.raises(ConfigError, match="nests"):
        load(tmp_path, top=f"x = {deep}")
    with pytest.raises(ConfigError, match="nests"):
        load(tmp_path, overrides=(f"x={deep}",))


@pytest.mark.parametrize("part", ["a", '"a\\"."', "'b.'", '"" ', "a\t"])
@pytest.mark.parametrize("form", ["{} = 1", "[{}]\nx = 1\n[data]"])
def test_a_key_of_a_hundred_thousand_parts_is_refused_before_memory_is_gone(tmp_path, part, form):
    with pytest.raises(ConfigError, match="nests tables by a key of more than 32 parts"):
        load(tmp_path, top=form.format(".".join([part] * 100_000)))


def test_looking_for_long_keys_takes_no_time_on_what_has_none(tmp_path):
    started = time.monotonic()
    for text in ("a" * 1_000_000, '"' * 999_999, "a." * 20 + "," + "b" * 1_000_000, "1.5, " * 200_000):
        with pytest.raises(ConfigError, match="is not TOML"):
            load(tmp_path, top=text)
    assert time.monotonic() - started < 10.0


def test_depth_is_counted_as_a_person_counts_it():
    nested: list = []
    for _ in range(MOST_DEPTH - 1):
        nested = [nested]
    refuse_depth(nested)
    with pytest.raises(ValueError, match="more than 32 deep"):
        refuse_depth([[nested]])


def test_more_columns_than_a_file_may_have_are_refused(tmp_path):
    names = ", ".join(f'"c{i}"' for i in range(MOST_COLUMNS + 1))
    assert len(names) < MOST_DOCUMENT_BYTES
    with pytest.raises(ConfigError, match=r"data\.ignore: .*at most 10000 items"):
        load(tmp_path, data=f"ignore = [{names}]")


def test_of_thousands_of_faults_a_few_are_said(tmp_path):
    with pytest.raises(ConfigError, match=r"; and 1,980 more$") as raised:
        load(tmp_path, top="\n".join(f"key_{i} = 1" for i in range(2000)))
    assert len(str(raised.value)) < 10_000


def test_a_long_value_is_cut_in_its_message(tmp_path):
    with pytest.raises(ConfigError, match=r"x{50}\.\.\.") as raised:
        load(tmp_path, top=f'preset = "{"x" * 1_000_000}"')
    assert len(str(raised.value)) < 1000
