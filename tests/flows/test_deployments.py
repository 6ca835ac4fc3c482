"""Rules of deployments/prefect.yaml: it loads, names what exists, and its forms are flat."""

import importlib
from pathlib import Path

import pytest
import yaml
from prefect import Flow

from crossrisk.config import load_portfolio

ROOT = Path(__file__).resolve().parents[2]
FILE = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())
DEPLOYMENTS = FILE["deployments"]


def flow_of(deployment) -> Flow:
    module, name = deployment["entrypoint"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def full_name(deployment) -> str:
    return f"{flow_of(deployment).name}/{deployment['name']}"


ASKED_FOR = {"score/on-demand": ["input", "output"]}
"""Parameters that the form asks for: what has no default that could be meant."""


def test_every_way_is_deployed():
    ways = {"retrain/monthly", "retrain/on-demand", "monitor/monthly", "score/on-demand"}
    assert {full_name(d) for d in DEPLOYMENTS} == ways


def test_nothing_of_the_deployers_machine_is_baked_in():
    assert FILE["pull"] == []
    assert FILE["build"] is None
    assert all("/" not in d["entrypoint"] and ":" not in d["entrypoint"] for d in DEPLOYMENTS)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=full_name)
def test_parameters_are_those_of_the_flow_and_name_a_portfolio_that_loads(deployment):
    properties = flow_of(deployment).parameters.properties
    schedules = deployment["schedules"]
    for parameters in [deployment["parameters"], *(s["parameters"] for s in schedules)]:
        assert set(parameters) <= set(properties)
        load_portfolio(ROOT / parameters["config"], environ={})


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=full_name)
def test_every_schedule_has_a_slug_and_waits_for_production(deployment):
    for schedule in deployment["schedules"]:
        assert schedule["slug"]
        assert schedule["timezone"] == "UTC"
        assert schedule["active"] == "{{ $CROSSRISK_SCHEDULES_ACTIVE }}"


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=full_name)
def test_the_form_is_flat_titled_and_described(deployment):
    for name, field in flow_of(deployment).parameters.properties.items():
        assert field["title"], name
        assert field["description"], name
        assert field["type"] in ("string", "array", "integer"), name
        assert "anyOf" not in field, name
        assert "$ref" not in field, name


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=full_name)
def test_only_what_nobody_can_guess_is_required_and_dates_go_by_pattern(deployment):
    schema = flow_of(deployment).parameters
    assert schema.required == ["config", *ASKED_FOR.get(full_name(deployment), [])]
    if full_name(deployment) not in ASKED_FOR:
        assert schema.properties["as_of"]["pattern"] == r"^(\d{4}-\d{2}-\d{2})?$"
        assert schema.properties["as_of"]["default"] == ""
    assert "pattern" not in schema.properties["config"]
