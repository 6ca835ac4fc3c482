"""The protocol between a parent and its worker, on tiny fake workers (no TensorFlow)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crossrisk.errors import InputError, PublishError, TrainingError
from models.child import run_worker

Worker = Callable[[str], str]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Write a worker module whose handler has the given body; return its import path."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))

    def write(body: str) -> str:
        lines = ["from models.child import serve", "def handler(spec, emit):"]
        lines += [f"    {line}" for line in body.splitlines()]
        lines += ["if __name__ == '__main__':", "    serve(handler)"]
        (tmp_path / "fake_worker.py").write_text("\n".join(lines), encoding="utf-8")
        return "fake_worker"

    return write


def test_worker_returns_what_its_handler_returned(worker: Worker, tmp_path: Path) -> None:
    module = worker("return {'doubled': 2 * spec['rows'], 'name': spec['name']}")
    assert run_worker(module, {"rows": 21, "name": "Zürich"}, workdir=tmp_path) == {"doubled": 42, "name": "Zürich"}


def test_spec_and_stderr_are_gone_afterwards(worker: Worker, tmp_path: Path) -> None:
    workdir = tmp_path / "work"
    workdir.mkdir()
    run_worker(worker("return {}"), {}, workdir=workdir)
    assert list(workdir.iterdir()) == []


def test_events_arrive_in_order_and_while_the_worker_runs(worker: Worker, tmp_path: Path) -> None:
    # the worker waits for a file that only the receiver of its first event writes
    module = worker(
        "import pathlib, time\n"
        "emit({'event': 'step', 'step': 1})\n"
        "until = time.monotonic() + 10\n"
        "while not pathlib.Path(spec['flag']).exists():\n"
        "    assert time.monotonic() < until\n"
        "    time.sleep(0.01)\n"
        "emit({'event': 'step', 'step': 2})\n"
        "return {}"
    )
    flag = tmp_path / "flag"
    seen: list[dict[str, object]] = []

    def on_event(event: dict[str, object]) -> None:
        seen.append(event)
        flag.touch()

    run_worker(module, {"flag": str(flag)}, workdir=tmp_path, on_event=on_event)
    assert seen == [{"event": "step", "step": 1}, {"event": "step", "step": 2}]


def test_events_are_no_result_where_nobody_listens(worker: Worker, tmp_path: Path) -> None:
    assert run_worker(worker("emit({'event': 'step'})\nreturn {'a': 1}"), {}, workdir=tmp_path) == {"a": 1}


@pytest.mark.parametrize("event", ["{'step': 1}", "{'event': 'step', 'ok': True}"])
def test_event_that_could_be_taken_for_something_else_is_refused(worker: Worker, tmp_path: Path, event: str) -> None:
    with pytest.raises(TrainingError, match="ValueError: an event needs a key"):
        run_worker(worker(f"emit({event})\nreturn {{}}"), {}, workdir=tmp_path)


def test_prints_of_python_and_of_native_code_do_not_disturb_the_protocol(worker: Worker, tmp_path: Path) -> None:
    module = worker("import os\nprint('hello')\nos.write(1, b'{native noise')\nreturn {'a': 1}")
    assert run_worker(module, {}, workdir=tmp_path) == {"a": 1}


def test_error_of_ours_keeps_its_type_and_message(worker: Worker, tmp_path: Path) -> None:
    module = worker("from crossrisk.errors import InputError\nraise InputError('column dti_ratio is missing')")
    with pytest.raises(InputError, match=r"^column dti_ratio is missing$"):
        run_worker(module, {}, workdir=tmp_path)


def test_any_other_error_becomes_the_callers_failure_with_its_traceback(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"(?s)fake_worker failed with KeyError: 'depth'.*Traceback"):
        run_worker(worker("return {'x': spec['depth']}"), {}, workdir=tmp_path, failure=PublishError)


def test_exit_without_a_result_is_a_failure_with_status_and_stderr(worker: Worker, tmp_path: Path) -> None:
    module = worker("import os, sys\nfor i in range(30): print('line', i, file=sys.stderr)\nos._exit(7)")
    with pytest.raises(TrainingError, match="exit status 7") as caught:
        run_worker(module, {}, workdir=tmp_path)
    assert str(caught.value).splitlines()[1:] == [f"  line {i}" for i in range(10, 30)]


def test_exit_zero_without_a_result_is_a_failure_too(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="exit status 0 before it gave a result; its stderr is empty"):
        run_worker(worker("import os\nos._exit(0)"), {}, workdir=tmp_path)


def test_killed_worker_is_a_failure_that_names_the_signal(worker: Worker, tmp_path: Path) -> None:
    module = worker("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(TrainingError, match=r"SIGKILL.*out of memory"):
        run_worker(module, {}, workdir=tmp_path)


def test_segmentation_fault_leaves_a_python_stack(worker: Worker, tmp_path: Path) -> None:
    module = worker("import ctypes\nctypes.string_at(0)\nreturn {}")
    with pytest.raises(TrainingError, match=r"(?s)SIGSEGV.*string_at"):
        run_worker(module, {}, workdir=tmp_path)


def test_unknown_module_is_a_failure_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"No module named models\.no_such_worker"):
        run_worker("models.no_such_worker", {}, workdir=tmp_path)


def test_listener_that_raises_ends_the_worker(worker: Worker, tmp_path: Path) -> None:
    module = worker("import os, time\nemit({'event': 'started', 'pid': os.getpid()})\ntime.sleep(60)\nreturn {}")
    pids: list[int] = []

    def on_event(event: dict[str, int]) -> None:
        pids.append(event["pid"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_worker(module, {}, workdir=tmp_path, on_event=on_event)
    assert not _alive(pids[0])


def test_worker_dies_with_its_parent(worker: Worker, tmp_path: Path) -> None:
    module = worker(
        "import os, pathlib, time\n"
        "pathlib.Path(spec['pid']).write_text(str(os.getpid()) + '\\n')\n"
        "time.sleep(60)\n"
        "return {}"
    )
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from models.child import run_worker; "
            f"run_worker({module!r}, {{'pid': sys.argv[1]}}, workdir=Path(sys.argv[2]))",
            str(pid_file),
            str(tmp_path),
        ]
    )
    try:
        _until(lambda: pid_file.exists() and pid_file.read_text(encoding="utf-8").endswith("\n"))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    child = int(pid_file.read_text(encoding="utf-8"))
    _until(lambda: not _alive(child))


def _alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has reaped yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
