"""Nothing that a run leaves behind needs unpickling: every contender form, as it is stored and as it is published."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import pytest
from contenders import CONTENDERS, PLAN, REFERENCE, SCALING

from models import bundle
from models.fitted import save_contender

SUFFIXES = {".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".h5", ".hdf5", ".keras", ".py", ".pyc", ".so"}


def is_pickle(content: bytes) -> bool:
    """Whether bytes are a pickle from begin to end."""
    try:
        operations = [operation.name for operation, _, _ in pickletools.genops(content)]
    except Exception:  # it raises whatever its parser meets
        return False
    return operations[-1] == "STOP"


def array_faults(name: str, content: bytes) -> list[str]:
    """Object arrays, which NumPy stores as pickles."""
    try:
        np.load(io.BytesIO(content), allow_pickle=False)
    except ValueError as error:
        return [f"{name}: {error}"]
    return []


def faults(folder: Path) -> list[str]:
    """What in a folder would need unpickling, or is code."""
    found = []
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file()):
        content = path.read_bytes()
        if path.suffix in SUFFIXES:
            found.append(f"{path.name}: a file of this kind is unpickled or run")
        if is_pickle(content):
            found.append(f"{path.name}: a pickle")
        if path.suffix == ".npy":
            found += array_faults(path.name, content)
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    found += array_faults(f"{path.name}/{member}", archive.read(member))
    return found


@pytest.mark.parametrize("name", CONTENDERS)
def test_no_contender_is_stored_or_published_as_a_pickle(name: str, tmp_path: Path) -> None:
    (tmp_path / "contender").mkdir()
    save_contender(CONTENDERS[name][0], tmp_path / "contender")
    bundle.export(PLAN, CONTENDERS[name][0], SCALING, tmp_path / "model", reference=REFERENCE)
    np.save(tmp_path / "reference_row.npy", REFERENCE, allow_pickle=False)
    assert len(list(tmp_path.rglob("*"))) > 8
    assert faults(tmp_path) == []


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_search_finds_a_pickle_by_its_content(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "harmless.json").write_bytes(pickle.dumps({"a": [1, "b"]}, protocol))
    assert faults(tmp_path) == ["harmless.json: a pickle"]


def test_the_search_finds_an_object_array_and_a_name(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}], object)
    np.savez(tmp_path / "arrays.npz", objects)
    np.save(tmp_path / "array.npy", objects)
    (tmp_path / "model.joblib").write_bytes(b"x")
    assert [fault.partition(":")[0] for fault in faults(tmp_path)] == [
        "array.npy",
        "arrays.npz/arr_0.npy",
        "model.joblib",
    ]
