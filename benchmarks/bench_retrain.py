"""Whole retrains as a person starts them: seconds a stage, seconds in all, peak memory of the process tree.

    python benchmarks/bench_retrain.py [--portfolio configs/demo.toml] [--json PATH]

Each portfolio runs in a process of its own into a fresh folder. Memory is the sum of the proportional set sizes (PSS)
of the command and all its children, Prefect's embedded server included, sampled five times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SAMPLE_EVERY_S = 0.2


def main() -> None:
    """Run, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--portfolio", action="append", help="TOML; default: the demo, and Lending Club where it is")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for config in options.portfolio or ["configs/demo.toml", "configs/lending_club.toml"]:
            home = Path(folder) / Path(config).stem
            home.mkdir()
            result = run(config, home)
            if result is not None:
                results.append(result)
                show(result)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def run(config: str, home: Path) -> dict | None:
    """One retrain; None where its data are not here."""
    environ = {**os.environ, "CROSSRISK_HOME": str(home)}
    crossrisk = str(Path(sys.executable).parent / "crossrisk")
    if "demo" in config:
        environ["CROSSRISK_DATA"] = str(home / "data")
        subprocess.run([crossrisk, "demo", str(home / "data")], check=True, capture_output=True)
    started = time.monotonic()
    with (home / "log").open("w") as log:
        process = psutil.Popen(
            [crossrisk, "retrain", str(ROOT / config), "--json"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, pss(process))
            time.sleep(SAMPLE_EVERY_S)
    seconds = time.monotonic() - started
    result = json.loads(process.stdout.read())
    if process.returncode != 0:
        print(f"{config}: not run: {result['message']}")
        return None
    return {
        "config": config, "seconds": seconds, "peak_pss_gb": peak / 1e9,
        "stages": result["seconds"], "verdict": result["verdict"],
    }  # fmt: skip


def pss(process: psutil.Process) -> int:
    """Proportional set size of a process and all below it, in bytes."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended between listing and asking
    return total


def show(result: dict) -> None:
    """Print one result."""
    print(f"\n{result['config']}: {result['verdict']}")
    for name, seconds in result["stages"].items():
        print(f"  {name:<24}{seconds:>8.1f} s")
    steps = sum(result["stages"].values())
    print(f"  {'start-up and the rest':<24}{result['seconds'] - steps:>8.1f} s")
    print(f"  {'whole command':<24}{result['seconds']:>8.1f} s   peak memory {result['peak_pss_gb']:.2f} GB")


if __name__ == "__main__":
    main()
