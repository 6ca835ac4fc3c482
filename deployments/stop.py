"""End a process that `serve.sh` started, its children first: `python stop.py PID`.

A worker that is told to end kills its runs without a word; one that is not would start the next run in the meantime.
So it is frozen, its runs are ended while the server still hears why, and then it is its own turn. No Prefect here.
"""

import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

GRACE_S = 10.0
"""a run writes its page and ends in about 2 s, unless it is deep in a library's call"""


def main() -> None:
    """End the process given."""
    process = psutil.Process(int(sys.argv[1]))
    process.suspend()
    children = process.children()
    for child in children:
        child.terminate()
    kill_after(GRACE_S, children)
    process.send_signal(signal.SIGINT)
    process.resume()
    kill_after(GRACE_S, [process])


def kill_after(grace_s: float, processes: Sequence[psutil.Process]) -> None:
    """Wait for processes to end; kill those that have not."""
    deadline = time.monotonic() + grace_s
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in filter(is_alive, processes):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs: one that has ended stays a zombie for as long as its parent, frozen or gone, does not ask."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main()
