"""Rules of a portfolio as it was: what is gone is named, what is laid out is what was there then."""

import hashlib
import json
import stat

import pytest
from builders import TOML, portfolio
from registries import enter, publish

from crossrisk.config import load_portfolio
from crossrisk.errors import InputError, PublishError
from crossrisk.registry import Registry
from flows.reproduce import _folder
from tasks.past import lay_out, read_past

FIRST, SECOND = 1_700_000_000, 1_700_000_001
DATA = b"the rows of then"
ENTRY = {"path": "loans.parquet", "sha256": hashlib.sha256(DATA).hexdigest()}
RATIOS = {"a_second": ["n1", "income_usd"], "z_first": ["income_usd", "balance_usd"]}


@pytest.fixture
def loaded(tmp_path):
    loaded = portfolio(tmp_path)
    loaded.folders.data_root.mkdir()
    (loaded.folders.data_root / "loans.parquet").write_bytes(DATA)
    return loaded


@pytest.fixture
def registry(loaded):
    return Registry(loaded.folders.registry)


def a_version(loaded, now=FIRST, *, compared_with=None, features=None, companions=None, **manifest):
    config = loaded.portfolio.model_dump(mode="json")
    config["features"] |= features or {}
    made = {"config": config, "input": [ENTRY], "digests": {"labels": "L"}, **manifest}
    companions = {"rows.parquet": "ids", **(companions or {})}
    record = {"compared_with": compared_with}
    return publish(Registry(loaded.folders.registry), now, companions=companions, record=record, **made).version


def an_assignment(loaded, as_of, text, *, labels="L", earlier=None):
    folder = loaded.folders.registry / "splits" / "honest-1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{as_of}.parquet").write_text(text)
    made_from = {"labels": labels, "split": loaded.portfolio.split.model_dump(mode="json"), "preset": "honest"}
    (folder / f"{as_of}.json").write_text(json.dumps({**made_from, "earlier": earlier}))
    return folder / f"{as_of}.parquet"


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_config_is_that_of_then_and_folders_are_those_of_today(loaded, tmp_path):
    a_version(loaded)
    (tmp_path / "mini.toml").write_text(TOML.replace("2024-12-31", "2026-01-31"))
    today = load_portfolio(tmp_path / "mini.toml", environ={"CROSSRISK_HOME": str(tmp_path)})
    past = read_past(today, FIRST)
    assert past.portfolio == loaded.portfolio
    assert past.portfolio != today.portfolio
    assert lay_out(past, today, tmp_path / "then").folders.config == today.folders.config


def test_every_file_that_is_gone_changed_or_elsewhere_is_named(loaded):
    files = [ENTRY, {**ENTRY, "path": "gone.parquet"}, {**ENTRY, "path": "../mini.toml"}]
    (loaded.folders.data_root / "loans.parquet").write_bytes(b"other rows")
    a_version(loaded, input=files)
    with pytest.raises(
        InputError, match=r"loans\.parquet has changed .*gone\.parquet is gone .*mini\.toml leads outside"
    ):
        read_past(loaded, FIRST)


def test_a_suite_beside_the_toml_that_is_gone_is_named(loaded, tmp_path):
    with_suite = portfolio(tmp_path, toml=TOML.replace("[label]", 'expectations = ["own.json"]\n[label]'))
    a_version(with_suite)
    with pytest.raises(InputError, match=r"the suite own\.json is gone from"):
        read_past(with_suite, FIRST)
    (tmp_path / "own.json").write_text("{}")
    assert read_past(with_suite, FIRST).version == FIRST


def test_the_rows_that_the_champion_had_seen_are_needed(loaded, registry):
    a_version(loaded)
    a_version(loaded, SECOND, compared_with=FIRST)
    registry.companion_path(FIRST, "rows.parquet").unlink()
    with pytest.raises(InputError, match=rf"champion {FIRST}, with which it was compared: rows\.parquet .* lost"):
        read_past(loaded, SECOND)


def test_a_manifest_that_was_changed_is_refused_also_where_its_model_was_pruned(loaded, registry):
    a_version(loaded)
    a_version(loaded, SECOND, compared_with=FIRST)
    (registry.models / str(FIRST) / "saved_model.pb").unlink()
    path = registry.manifest_path(FIRST)
    path.write_text(path.read_text().replace("stacked", "dan"))
    with pytest.raises(PublishError, match="was changed after version"):
        read_past(loaded, FIRST)


def test_the_registry_is_laid_out_as_it_was_before_the_decision(loaded, registry, tmp_path):
    a_version(loaded)
    enter(registry, run_id="kept")
    a_version(loaded, SECOND, compared_with=FIRST)
    enter(registry, run_id="later")
    there = lay_out(read_past(loaded, SECOND), loaded, tmp_path / "then")
    then = Registry(there.folders.registry)
    assert [record["run_id"] for record in then.records()] == [f"run-{FIRST}-model", "kept"]
    assert then.champion().version == FIRST
    assert then.companion_path(FIRST, "rows.parquet").read_text() == "ids"
    assert (there.folders.data_root / "loans.parquet").read_bytes() == DATA
    assert not there.folders.work.exists()


def test_data_that_cannot_be_linked_are_copied(loaded, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("tasks.past.os.link", refuse)
    a_version(loaded)
    there = lay_out(read_past(loaded, FIRST), loaded, tmp_path / "then")
    assert (there.folders.data_root / "loans.parquet").read_bytes() == DATA


# --- the assignment that bound ---


def test_the_first_split_of_a_portfolio_was_bound_by_none(loaded):
    a_version(loaded)
    an_assignment(loaded, "2024-12-31", "own")
    an_assignment(loaded, "2025-01-31", "later", earlier=digest("own"))
    past = read_past(loaded, FIRST)
    assert (past.bound_by, past.notes) == (None, ())


def test_a_later_split_was_bound_by_the_one_it_recorded(loaded, tmp_path):
    a_version(loaded)
    before = an_assignment(loaded, "2024-11-30", "before")
    an_assignment(loaded, "2024-12-31", "own", earlier=digest("before"))
    past = read_past(loaded, FIRST)
    assert (past.bound_by, past.notes) == (before, ())
    there = lay_out(past, loaded, tmp_path / "then")
    assert sorted(path.name for path in there.folders.registry.glob("splits/honest-1/*")) == [
        "2024-11-30.json",
        "2024-11-30.parquet",
    ]


def test_where_the_one_that_bound_was_replaced_the_versions_own_has_kept_its_sides(loaded):
    a_version(loaded)
    an_assignment(loaded, "2024-11-30", "drawn again since")
    own = an_assignment(loaded, "2024-12-31", "own", earlier=digest("before"))
    past = read_past(loaded, FIRST)
    assert (past.bound_by, past.notes) == (own, ())


def test_where_another_run_has_written_over_the_versions_own_it_is_said(loaded):
    a_version(loaded)
    before = an_assignment(loaded, "2024-11-30", "before")
    an_assignment(loaded, "2024-12-31", "another's", labels="other", earlier=digest("own"))
    past = read_past(loaded, FIRST)
    assert past.bound_by == before
    assert "as of 2024-12-31 is no longer the version's own" in past.notes[0]
    assert "bound by that of 2024-11-30" in past.notes[0]


def test_data_in_a_folder_that_stays_are_no_links_to_the_originals(loaded, tmp_path):
    a_version(loaded)
    laid_out = lay_out(read_past(loaded, FIRST), loaded, tmp_path / "then", may_link=False)
    (laid_out.folders.data_root / "loans.parquet").write_bytes(b"edited")
    assert (loaded.folders.data_root / "loans.parquet").read_bytes() == DATA


def test_a_folder_to_keep_is_private_and_what_is_no_empty_folder_is_refused(loaded, tmp_path):
    with _folder(loaded.folders, str(tmp_path / "kept")) as kept:
        assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(InputError, match=r"no folder to work in .*name an empty one"),
        _folder(loaded.folders, str(tmp_path / "file")),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine"
