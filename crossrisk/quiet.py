"""Environment of every process: no telemetry, no noise, Prefect's embedded server where no other is configured."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping

QUIET_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # both are needed: with only the first, a server offline logs errors
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "crossrisk",  # our modules log with the standard library; the UI shows it
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "GX_ANALYTICS_ENABLED": "false",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}


def make_quiet(environ: MutableMapping[str, str]) -> None:
    """Fill in what is not set; what a person has set stays. Call before Prefect, GX or TensorFlow are imported."""
    for key, value in QUIET_ENVIRONMENT.items():
        environ.setdefault(key, value)


def set_log_level(environ: MutableMapping[str, str], level: str) -> None:
    """How much a command says while it works: ours, and Prefect's where nobody has set it. Call before its import."""
    environ.setdefault("PREFECT_LOGGING_LEVEL", level)
    logging.getLogger("crossrisk").setLevel(level)
