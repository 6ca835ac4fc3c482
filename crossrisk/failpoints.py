"""Places where a test may have the process die: every step of a publication calls `reach`.

`CROSSRISK_FAILPOINT="publish.renamed=kill"` and the process gets the signal there that a power cut, an operator or
the kernel would send; `enospc` raises what a full disk raises. Without the variable nothing happens. It is the one
place besides the command line that reads the environment: a fault must not need a code path of its own.
"""

from __future__ import annotations

import errno
import os
import signal

VARIABLE = "CROSSRISK_FAILPOINT"
_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT, "stop": signal.SIGSTOP}


def reach(place: str) -> None:
    """Do what the environment asks for at this place.

    Raises:
        OSError: ENOSPC, where that is asked for.
        ValueError: an action that is none of ours.
    """
    wanted, _, action = os.environ.get(VARIABLE, "").partition("=")
    if wanted != place:
        return
    if action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
    if action not in _SIGNALS:
        raise ValueError(f"{VARIABLE}={wanted}={action}: expected {', '.join(_SIGNALS)} or enospc")
    del os.environ[VARIABLE]  # a signal comes once: whoever cleans up after it may pass here again; a disk stays full
    os.kill(os.getpid(), _SIGNALS[action])
