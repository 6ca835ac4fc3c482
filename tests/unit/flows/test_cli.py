"""Rules of the command line that need no run: exit codes, the shape of errors, what the demo command takes."""

import json
import subprocess
import sys
from dataclasses import fields

import polars as pl
import pytest

from crossrisk.demo import DemoSpec
from crossrisk.errors import (
    ConfigError,
    CrossriskError,
    InputError,
    PublishError,
    TrainingError,
    ValidationBlockedError,
)
from flows.cli import main


def test_exit_codes_are_those_promised():
    codes = {e: e.exit_code for e in (ConfigError, InputError, ValidationBlockedError, TrainingError, PublishError)}
    assert list(codes.values()) == [2, 2, 3, 4, 4]
    assert CrossriskError.exit_code == 4


def test_a_config_that_is_not_there_ends_with_2_and_one_line(capsys, tmp_path):
    assert main(["retrain", str(tmp_path / "none.toml")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "cannot read the portfolio" in printed.err


def test_json_stays_json_when_the_run_fails(capsys, tmp_path):
    assert main(["retrain", str(tmp_path / "none.toml"), "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert (printed["error"], printed["exit_code"]) == ("ConfigError", 2)


@pytest.mark.parametrize("arguments", [[], ["retrain"], ["retrain", "x", "--preset", "other"], ["fly"]])
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_demo_command_takes_every_number_of_its_recipe(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    text = capsys.readouterr().out
    numbers = [f.name for f in fields(DemoSpec) if isinstance(getattr(DemoSpec(), f.name), int | float)]
    assert [n for n in numbers if "--" + n.replace("_", "-") not in text] == []


def test_the_demo_command_writes_what_it_was_asked_for(tmp_path):
    sizes = {
        "target-bads": 30,
        "target-goods": 300,
        "source-bads": 40,
        "source-goods": 400,
        "features": 10,
        "months": 3,
    }
    arguments = [part for name, size in sizes.items() for part in (f"--{name}", str(size))]
    assert main(["demo", str(tmp_path), *arguments]) == 0
    rows = pl.read_parquet(tmp_path / "demo", hive_partitioning=True)
    assert rows.group_by("product").agg(pl.col("bad").sum()).sort("product")["bad"].to_list() == [30, 40]
    assert rows["month"].n_unique() == 3


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_read_enough_is_no_failure(lines):
    code = (
        "import sys; from flows import cli\n"
        f"def speak(options): print('first', flush=True); sys.stdin.read(); print('x\\n' * {lines}); return 0\n"
        "cli._demo = speak\n"
        "sys.exit(cli.main(['demo', 'nowhere']))\n"
    )
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline() == "first\n"
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_pipe_that_breaks_elsewhere_is_a_failure(monkeypatch, capfd):
    def fail(options):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("flows.cli._demo", fail)
    assert main(["demo", "nowhere"]) == 4
    assert "BrokenPipeError" in capfd.readouterr().err
