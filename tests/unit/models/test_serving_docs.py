"""Whatever docs/serving.md tells a reader to type is typed here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from contenders import CONTENDERS, PLAN, REFERENCE, SCALING, ask_stranger

from models import bundle, serving_graph

pytestmark = pytest.mark.flow  # half a minute of other processes
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines()]
REQUESTS = [json.loads(block) for block in blocks("json")]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("exported") / "1700000000"
    bundle.export(PLAN, CONTENDERS["network_relu"][0], SCALING, directory, reference=REFERENCE)
    return directory


def test_the_page_has_what_is_run_here() -> None:
    assert len(COMMANDS) == 6
    assert len(REQUESTS) == 2
    assert len(blocks("python")) == 1


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(re.findall(r"show|run|_def (\w+)", command)))
def test_a_command_of_the_page_runs(exported: Path, command: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "VERSION": str(exported), "TF_CPP_MIN_LOG_LEVEL": "3"}
    finished = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    signature = re.findall(r"--signature_def (\w+)", command)[0]
    for output in serving_graph.OUTPUTS[signature]:
        assert f"outputs['{output}']" in finished.stdout or f"output key {output}:" in finished.stdout


def test_a_request_of_the_page_is_answered(exported: Path) -> None:
    rows, reasons = ask_stranger(exported, *REQUESTS)
    assert [set(row) for row in rows["predictions"]] == [{"probability", "score"}] * 2
    assert set(reasons["outputs"]) == {"feature", "contribution", "points", "base"}


def test_the_python_of_the_page_builds_a_request_that_the_signature_takes(exported: Path) -> None:
    pytest.importorskip("tensorflow_serving.apis.predict_pb2", reason="the extra `serving` is not installed")
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    tf, request = names["tf"], names["request"]
    signature = bundle.load(exported).saved.signatures[request.model_spec.signature_name]
    feed = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
    assert 0 < float(signature(**feed)["probability"][0]) < 1


def test_the_page_names_every_signature_and_every_output() -> None:
    for signature, outputs in serving_graph.OUTPUTS.items():
        assert f"| `{signature}` |" in PAGE
        assert all(f"`{output}`" in PAGE for output in outputs)
