"""One child process for one piece of TensorFlow work, and the protocol between it and its parent.

Parent: `run_worker` starts `python -m <module> <spec.json>`. Child: the module's `__main__` calls `serve(handler)`.
On the child's standard output go JSON lines and nothing else: any number of events (`{"event": ..., ...}`), then one
result (`{"ok": true, ...}` or `{"ok": false, "error_type": ..., "error": ...}`). Its memory ends with it, a crash
there is an exception here, and it ends when its parent does. What a worker does stays out; TensorFlow is never
imported here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from crossrisk import errors
from crossrisk.errors import CrossriskError, TrainingError

Json = dict[str, Any]
Emit = Callable[[Json], None]

TIED = "--tied"
"""Second argument of a worker started by `run_worker`: its standard input is a pipe that closes with the parent."""

_HINTS = {
    "SIGKILL": " (usually the kernel, out of memory: give the run more, or fewer rows)",
    "SIGABRT": " (a native library gave up, mostly for lack of memory: give the run more, or fewer rows)",
}

STDERR_LINES = 20
_LINES_OF_CAUSE = 5
_CRASH = "Fatal Python error"
"""The line with which faulthandler begins its stacks: what ended the process stands before it, far above the end."""
_STDERR_BYTES = 64 * 1024  # read back from the end of the child's stderr: more than STDERR_LINES of any traceback

_QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYTHONFAULTHANDLER": "1",  # a segmentation fault in a native library leaves a Python stack on stderr
}

_ERROR_TYPES: dict[str, type[CrossriskError]] = {
    name: value for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, CrossriskError)
}


# --- the parent's side ---


def run_worker(
    module: str,
    spec: Mapping[str, Any],
    *,
    workdir: Path,
    on_event: Callable[[Json], None] | None = None,
    failure: type[CrossriskError] = TrainingError,
) -> Json:
    """Run a worker module on a spec in a fresh interpreter and return what its handler returned.

    Args:
        module: import path of the worker, e.g. "models.export_worker".
        spec: what the handler is given; anything `json.dumps` takes.
        workdir: an existing directory for the spec and the child's stderr, both gone when this returns.
        on_event: called with every event, in order, while the child runs; what it raises ends the child.
        failure: raised where the child dies, or fails with an error that is none of ours.

    Raises:
        CrossriskError: of the child's own type where it raised one of `crossrisk.errors`, else `failure` with the
            exit status or signal and the last lines of the child's stderr.
    """
    with tempfile.TemporaryDirectory(dir=workdir, prefix=".worker-") as folder:
        spec_path = Path(folder) / "spec.json"
        spec_path.write_text(json.dumps(dict(spec)), encoding="utf-8")
        with (Path(folder) / "stderr").open("w+b") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(spec_path), TIED],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **_QUIET},
                encoding="utf-8",
            )
            result = _wait(process, on_event)
            if result is None:
                raise failure(f"{module} {_ending(process.returncode)} before it gave a result{_tail(stderr)}")
            if result.pop("ok"):
                return result
            error_type, message = result["error_type"], result["error"]
            if error_type in _ERROR_TYPES:
                raise _ERROR_TYPES[error_type](message)
            raise failure(f"{module} failed with {error_type}: {message}{_tail(stderr)}")


def _wait(process: subprocess.Popen[str], on_event: Callable[[Json], None] | None) -> Json | None:
    """Pass events on until the child has ended; its result, None where it ended without one."""
    result: Json | None = None
    with process:
        try:
            for message in _messages(process):
                if "ok" in message:
                    result = message
                elif on_event is not None:
                    on_event(message)
        except BaseException:  # a cancelled flow must not leave a training process behind
            process.kill()
            raise
    return result


def _messages(process: subprocess.Popen[str]) -> Iterator[Json]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("\n"):  # a half line is the last breath of a killed child: the exit status explains it
            yield json.loads(line)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    name = signal.Signals(-status).name
    return f"was ended by {name}{_HINTS.get(name, '')}"


def _tail(stderr: IO[bytes]) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _STDERR_BYTES))
    written = stderr.read().decode("utf-8", errors="replace").splitlines()
    lines = [line for line in written if not line.startswith("Extension modules: ")]  # thousands of letters, no news
    shown = lines[-STDERR_LINES:]
    crash = next((place for place, line in enumerate(lines) if line.startswith(_CRASH)), len(lines))
    if crash < len(lines) - STDERR_LINES:
        shown = [*lines[max(0, crash - _LINES_OF_CAUSE) : crash + 1], "...", *shown]
    return (
        "".join(["; the end of its stderr:", *(f"\n  {line}" for line in shown)]) if shown else "; its stderr is empty"
    )


# --- the child's side ---


def serve(handler: Callable[[Json, Emit], Json]) -> None:
    """Run a worker: read the spec named by the first argument, hand it to `handler`, print its result, exit 0 or 1.

    `handler(spec, emit)` returns the result; `emit({"event": ..., ...})` reports progress on the way. Whatever else
    prints to standard output, native libraries included, is sent to stderr, so that the protocol stays clean.
    """
    if TIED in sys.argv[2:]:
        threading.Thread(target=_exit_when_stdin_closes, daemon=True).start()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)

        def send(message: Json) -> None:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

        def emit(message: Json) -> None:
            if "event" not in message or "ok" in message:
                raise ValueError(f'an event needs a key "event" and none called "ok", got {sorted(message)}')
            send(message)

        try:
            spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
            send({"ok": True, **handler(spec, emit)})
        except Exception as error:
            traceback.print_exc()
            send({"ok": False, "error_type": type(error).__name__, "error": str(error)})
            sys.exit(1)


def _exit_when_stdin_closes() -> None:
    # os.read and not sys.stdin: a daemon thread inside sys.stdin's lock aborts the interpreter at its own exit
    while os.read(0, 1):
        pass
    os._exit(1)
