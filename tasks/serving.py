"""Asking a TF Serving server whether it serves what was published, and moving its label once it does.

Nothing here holds the registry's lock while it waits, and nothing that a server says or fails to say undoes a
publication. What the server is told is `crossrisk.registry.serving`'s.
"""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from crossrisk.config import Loaded, check_address
from crossrisk.errors import CrossriskError, InputError, PublishError
from crossrisk.pages.texts import visible_text
from crossrisk.registry import Registry, locked
from crossrisk.registry.serving import STABLE, Serving, Way, advance, choose_way, is_told, model_name, read_serving

logger = logging.getLogger("crossrisk.serving")

WAIT_S = 120.0
"""For a server to read its configuration anew (30 s as we advise) and to load a version, twice."""
ASK_EVERY_S = 0.5
ANSWER_S = 10.0
"""For one answer."""
LONGEST_ANSWER = 1 << 20
"""Bytes read of an answer; a status has some hundreds, the metadata of a wide model some ten thousands."""

Say = Callable[[str], None]

# A proxy of the environment is for the world outside: a server of the house is asked directly.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def configure(registry: Registry, way: Way) -> Serving:
    """Write the configuration in the way that the portfolio's TOML asks for; what a death left unwritten is written.

    Where nothing would change, nothing is written, and the lock not taken.

    Raises:
        InputError: the way would change while a version is on its way to the label.
    """
    if is_told(registry, way):  # who may only read the registry may still ask
        return read_serving(registry)
    with locked(registry):
        return choose_way(registry, way)


def advance_unasked(registry: Registry) -> Serving:
    """The second step, on the word of a person who has looked: the server is not asked.

    Raises:
        InputError: no version waits for it.
    """
    with locked(registry):
        arriving = read_serving(registry).arriving
        if arriving is None:
            raise InputError(f"no version is on its way to the label {STABLE}: there is no second step to take")
        return advance(registry, arriving)


def bring_in(registry: Registry, server: str, *, timeout_s: float = WAIT_S, say: Say = logger.info) -> Serving:
    """Wait until a server has loaded the champion, take the second step where there is one, wait for the label.

    Args:
        registry: of the portfolio; not locked.
        server: address of its REST interface, http://host:port.
        timeout_s: for each of both waits.
        say: told what the server says, whenever that changes.

    Raises:
        InputError: no http address, or nothing was published yet.
        PublishError: the server did not get there in time, or has given up loading: with its own words.
    """
    serving, name = read_serving(registry), model_name(registry)
    version = serving.arriving or serving.stable
    if version is None:
        raise InputError(f"nothing was published in {registry.root} yet: there is nothing to serve")
    base = _address(server)
    _await(lambda: _why_not_loaded(f"{base}/v1/models/{name}/versions/{version}"), timeout_s, say)
    say(f"{name} version {version}: AVAILABLE")
    if serving.arriving is not None:
        with locked(registry):
            serving = advance(registry, version)
    # The status of a label is that of all versions, whatever it names; its metadata are those of its version.
    _await(lambda: _why_not_named(f"{base}/v1/models/{name}/labels/{STABLE}/metadata", version), timeout_s, say)
    say(f"{name} label {STABLE}: version {version}")
    return serving


def follow_publication(loaded: Loaded, *, timeout_s: float = WAIT_S) -> str | None:
    """After a publication: what became of it on the portfolio's server, in words; None where none is configured.

    A server that does not follow is a warning, whatever the cause, for the version is published and whole.
    """
    registry, publish = Registry(loaded.folders.registry), loaded.portfolio.publish
    try:
        if read_serving(registry).way != publish.serving:
            configure(registry, publish.serving)
        if publish.server is None:
            return None
        serving = bring_in(registry, publish.server, timeout_s=timeout_s)
    except (CrossriskError, ValueError, OSError) as error:
        said = visible_text(f"published, but {error}")  # a server's words, on their way into a log
        logger.warning(said)
        return said
    return f"{publish.server} serves version {serving.stable} as {STABLE}"


# --- asking ---


def _address(server: str) -> str:
    try:
        return check_address(server)
    except ValueError as error:
        raise InputError(str(error)) from error


def _await(why_not: Callable[[], str | None], timeout_s: float, say: Say) -> None:
    """Ask until there is no reason left why not, and say each new reason.

    Raises:
        PublishError: there still is one.
    """
    deadline, said = time.monotonic() + timeout_s, ""
    while (reason := why_not()) is not None:
        if time.monotonic() > deadline:
            raise PublishError(f"{reason}; waited for {timeout_s:.0f} s. Mend that, then: crossrisk serving --server")
        if reason != said:
            say(visible_text(reason))
            said = reason
        time.sleep(ASK_EVERY_S)


def _why_not_loaded(url: str) -> str | None:
    """Why a version is not AVAILABLE; None where it is.

    Raises:
        PublishError: the server has given up on it.
    """
    answer, fault = _ask(url)
    if answer is None:
        return fault
    try:
        (status,) = answer["model_version_status"]
        state, message = status["state"], status["status"]["error_message"]
    except (KeyError, TypeError, ValueError):
        return f"{url} answers {_short(answer)}, which is no status of TF Serving"
    if state == "AVAILABLE":
        return None
    if state == "END" and message:  # it is not tried again while the folder stays (serving #1738)
        raise PublishError(
            f"{url}: the server gave up loading it: {message}. It goes on with the version before; mend the cause and "
            "restart the server, or: crossrisk rollback"
        )
    return f"{url}: {state}" + (f", {message}" if message else "")


def _why_not_named(url: str, version: int) -> str | None:
    """Why a label does not name a version; None where it does."""
    answer, fault = _ask(url)
    if answer is None:
        return fault
    try:
        named = int(answer["model_spec"]["version"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return f"{url} answers {_short(answer)}, which are no metadata of TF Serving"
    return None if named == version else f"{url}: still version {named}"


def _ask(url: str) -> tuple[Any, str]:
    """What a server answers, and why there is no answer where there is none (then None)."""
    try:
        code, body = _fetch(url)
        if code is not None:
            return None, f"{url}: {_error_text(body) or f'HTTP {code}'}"
        answer = json.loads(body)
    except (ValueError, RecursionError, HTTPException):
        return None, f"{url} answers with something that is no JSON: is it TF Serving's REST port?"
    except OSError as error:
        return None, f"{url} does not answer: {getattr(error, 'reason', None) or error}"
    return answer, f"{url} answers null, which is nothing that TF Serving says"


def _fetch(url: str) -> tuple[int | None, bytes]:
    """The code of an error, None for an answer, and the body of either."""
    try:
        with _OPENER.open(url, timeout=ANSWER_S) as response:
            return None, response.read(LONGEST_ANSWER)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(LONGEST_ANSWER)


def _error_text(body: bytes) -> str:
    """The server's own words; TF Serving puts them under `error`."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.decode("utf-8", errors="replace").strip()[:200]


def _short(answer: Any) -> str:
    return repr(answer)[:200]
