"""Row 21: a network namespace with no interface but loopback, in which the kernel counts every attempt to get out."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import FLOW_TOML, loans_with_noise

pytestmark = [pytest.mark.fault(21), pytest.mark.heavy]

HERE = Path(__file__).resolve().parent
OFFLINE = HERE.parent / "flows" / "offline.py"
CROSSRISK = str(Path(sys.executable).parent / "crossrisk")
ASKS = {
    "a connection": "socket.create_connection(('192.0.2.1', 80), timeout=5)",
    "a datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
}
"""192.0.2.0/24 belongs to documentation (RFC 5737): nobody answers there, and nobody is bothered"""


@dataclass(frozen=True)
class Isolated:
    """A command that ran without a network."""

    code: int
    attempts: int
    stdout: str
    stderr: str


def isolated(folder: Path, *command: str) -> Isolated:
    environ = {key: value for key, value in os.environ.items() if key != "CROSSRISK_DATA"}
    environ |= {"CROSSRISK_HOME": str(folder), "PREFECT_HOME": str(folder / "prefect")}
    counted = folder / "attempts"
    wrapped = [sys.executable, str(OFFLINE), sys.executable, str(HERE / "attempts.py"), str(counted), *command]
    done = subprocess.run(wrapped, env=environ, capture_output=True, text=True, check=False)
    if "unshare refused" in done.stderr:
        pytest.skip("this machine refuses unprivileged network namespaces")
    assert counted.exists(), done.stderr[-2000:]
    return Isolated(done.returncode, int(counted.read_text()), done.stdout, done.stderr)


@pytest.mark.parametrize("ask", ASKS)
def test_an_attempt_to_get_out_is_counted(tmp_path, ask):
    found = isolated(tmp_path, sys.executable, "-c", f"import socket\n{ASKS[ask]}")
    assert (found.code, found.attempts) == (1, 1)
    assert "Network is unreachable" in found.stderr


def test_a_retrain_and_a_monitored_month_pass_and_try_nothing(tmp_path):
    (tmp_path / "data").mkdir()
    loans_with_noise().write_parquet(tmp_path / "data" / "loans.parquet")
    config = tmp_path / "mini.toml"
    config.write_text(FLOW_TOML)
    overrides = ("--set", "lineup.contenders=['source_logistic']")
    retrained = isolated(tmp_path, CROSSRISK, "retrain", str(config), *overrides, "--json")
    assert retrained.code == 0, retrained.stderr[-3000:]
    assert json.loads(retrained.stdout)["verdict"] == "bootstrap"
    monitored = isolated(tmp_path, CROSSRISK, "monitor", str(config), *overrides, "--json")
    assert monitored.code == 0, monitored.stderr[-3000:]
    assert (retrained.attempts, monitored.attempts) == (0, 0)
