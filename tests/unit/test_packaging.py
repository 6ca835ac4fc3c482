"""Rules of the generic names at the root, and of the lock file."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"flows", "tasks", "models", "expectations", "crossrisk"}


def test_no_other_distribution_ships_our_names():
    owners = importlib.metadata.packages_distributions()
    assert {name: set(owners.get(name, [])) - {"crossrisk"} for name in PACKAGES} == {name: set() for name in PACKAGES}


def test_the_lock_has_a_hash_for_every_requirement_and_no_address():
    text = (ROOT / "requirements.lock").read_text()
    requirements = re.findall(r"^\S+==\S+.*?(?=^\S|\Z)", text, flags=re.M | re.S)
    assert len(requirements) > 100
    assert [r.split("==")[0] for r in requirements if "--hash=sha256:" not in r] == []
    assert "://" not in text
    assert "index-url" not in text


def test_help_needs_neither_prefect_nor_tensorflow():
    code = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "loaded = {'prefect', 'tensorflow', 'great_expectations', 'sklearn'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "retrain" in done.stdout


def test_the_library_needs_neither_prefect_nor_tensorflow():
    modules = sorted(p.stem for p in (ROOT / "crossrisk").glob("*.py") if p.stem != "__init__")
    code = (
        f"import sys, importlib\nfor m in {modules!r}:\n    importlib.import_module('crossrisk.' + m)\n"
        "loaded = {'prefect', 'tensorflow', 'great_expectations', 'keras'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
