"""What the product's code may not do at all: unpickle, run text, unpack, write spreadsheets, start a shell."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("crossrisk", "expectations", "flows", "models", "tasks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TEMPLATES = sorted((ROOT / "crossrisk" / "pages" / "templates").glob("*.j2"))

UNPICKLES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "torch", "h5py",
}  # fmt: skip
UNPACKS = {"zipfile", "tarfile", "gzip", "bz2", "lzma", "zlib"}
PARSES_XML = {"xml", "lxml"}
SPREADSHEETS = {"csv", "xlsxwriter", "openpyxl", "xlwt", "pandas"}
FORBIDDEN_MODULES = UNPICKLES | UNPACKS | PARSES_XML | SPREADSHEETS | {"yaml", "telnetlib", "ftplib"}
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__",
    "os.system", "os.popen", "subprocess.getoutput",
    "read_pickle", "to_pickle", "load_weights", "load_model", "enable_unsafe_deserialization",
    "deserialize_keras_object", "model_from_json", "model_from_config", "Lambda", "func_load",
    "py_function", "numpy_function", "py_func",
    "unpack_archive", "extractall",
    "write_csv", "sink_csv", "to_csv", "write_excel", "to_excel",
    "yaml.load", "SQLContext", "pl.sql", "read_database", "deserialize",
}  # fmt: skip
"""By full name, or by the last part of it."""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def forbidden(code: str) -> list[str]:
    tree = ast.parse(code)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.partition(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in FORBIDDEN_MODULES:
            found.append(str(node.module))
    for name, call in calls(tree):
        if name in FORBIDDEN_CALLS or (
            "." in name and name.rpartition(".")[2] in FORBIDDEN_CALLS - {"compile", "exec"}
        ):
            found.append(name)
        for keyword in call.keywords:
            is_true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if keyword.arg in ("allow_pickle", "shell") and not (
                isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            ):
                found.append(f"{name}({keyword.arg}=...)")
            if keyword.arg == "safe_mode" and not is_true:
                found.append(f"{name}(safe_mode=...)")
        # saving allows pickles unless told otherwise: an object array would become one without a word
        if re.search(r"\b(np|numpy)\.(load|save|savez|savez_compressed)$", name) and "allow_pickle" not in {
            keyword.arg for keyword in call.keywords
        }:
            found.append(f"{name} without allow_pickle=False")
    return found


def test_there_is_code_to_look_at():
    assert len(SOURCES) > 100
    assert len(TEMPLATES) >= 8


@pytest.mark.parametrize("package", PACKAGES)
def test_no_code_unpickles_runs_text_unpacks_or_writes_spreadsheets(package):
    """Whoever adds CSV or Excel output reads docs/security.md first: cells that begin with = + - @ are formulas."""
    found = {
        str(path.relative_to(ROOT)): names
        for path in SOURCES
        if path.is_relative_to(ROOT / package) and (names := forbidden(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "import yaml", "eval(x)", "exec(x)", "compile(a, b, c)",
        "import torch", "numpy.load(f)", "np.save(f, x)", "np.savez(f, x)", "np.savez_compressed(f, x)",
        "keras.layers.Lambda(f)", "keras.models.model_from_json(text)", "tf.py_function(f, x, tf.float32)",
        "tf.numpy_function(f, x, tf.float32)", "keras.saving.deserialize_keras_object(config)",
        "np.load(f)", "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=flag)", "frame.write_csv(f)",
        "pandas_frame.to_excel(f)", "import csv", "subprocess.run(c, shell=True)", "shutil.unpack_archive(f)",
        "keras.models.load_model(f)", "keras.saving.load_model(f, safe_mode=False)", "os.system(c)",
        "pl.SQLContext()", "pl.Expr.deserialize(f)", "import xml.etree.ElementTree",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_is_for(code):
    assert forbidden(code)


def test_no_file_of_the_tree_needs_unpickling_or_is_a_stored_model():
    suffixes = {".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".h5", ".hdf5", ".keras", ".npy", ".npz", ".pb"}
    looked_at = [
        path for name in (*PACKAGES, "tests", "configs", "docs", "benchmarks") for path in (ROOT / name).rglob("*")
    ]
    assert len(looked_at) > 300
    assert [str(path.relative_to(ROOT)) for path in looked_at if path.suffix in suffixes] == []


def test_sql_becomes_an_expression_at_one_door():
    doors = {p.name for p in SOURCES if "sql_expr(" in p.read_text(encoding="utf-8")}
    assert doors == {"sql_rules.py"}


def test_no_template_marks_anything_but_its_own_text_as_safe():
    for template in TEMPLATES:
        text = template.read_text(encoding="utf-8")
        marked = re.findall(r"(\S+)\s*\|\s*safe\b", text)
        assert [one for one in marked if not re.fullmatch(r'"&#?\w+;"', one)] == [], template.name
        assert not re.search(r"autoescape\s+false|<script|\son\w+\s*=|javascript:", text, re.IGNORECASE), template.name


def test_every_page_forbids_scripts_and_addresses():
    pages = [path for path in TEMPLATES if "<html" in path.read_text(encoding="utf-8")]
    assert len(pages) >= 6
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"" in text, page.name


def test_attributes_hold_words_of_ours_or_escaped_addresses():
    """In an attribute a template prints words of its own, a class of a closed list, or a name through urlencode."""
    allowed = {
        "verdict.word", "words.word", "said.verdict", "run.verdict", "run.light", "run.state", "signal.light",
        "report.outcome", "run.validation.outcome", "action", "check.action", "light_of[word]", "name | urlencode",
        'check.outcome | replace(" ", "-")',
    }  # fmt: skip
    for template in TEMPLATES:
        for attribute in re.findall(r'\w+="([^"]*\{\{.*?\}\}[^"]*)"', template.read_text(encoding="utf-8")):
            printed = {one.strip() for one in re.findall(r"\{\{(.*?)\}\}", attribute)}
            ours = {one for one in printed if one.startswith(('"', "'")) or one in allowed}
            assert printed - ours == set(), template.name


def test_every_exception_to_the_security_rules_gives_its_reason():
    for path in SOURCES:
        for line in path.read_text(encoding="utf-8").splitlines():
            found = re.search(r"#.*noqa:(?P<codes>[\sA-Z0-9,]*?S\d{3}[\sA-Z0-9,]*?)(?P<why>\s-?\s?[a-z].*)?$", line)
            assert found is None or found["why"], f"{path.name}: {line.strip()}"
