"""The few error types that cross a border. Pure code raises ValueError; the edges raise these.

Each class carries the exit code with which the command line ends.
"""


class CrossriskError(Exception):
    """A failure whose message says what was expected, what came, where, and the next move."""

    exit_code = 4


class ConfigError(CrossriskError):
    """The portfolio's TOML, or a `--set` on top of it, does not say what it must."""

    exit_code = 2


class InputError(CrossriskError):
    """The data cannot be read as the config describes them: nothing was trained, the champion is untouched."""

    exit_code = 2


class ValidationBlockedError(CrossriskError):
    """An expectation whose meta says `stop` failed, or too many rows were quarantined."""

    exit_code = 3


class TrainingError(CrossriskError):
    """A contender could not be trained (diverged, killed, too few rows); the cause is in the message."""


class PublishError(CrossriskError):
    """A version could not be staged or verified; nothing numbered was created."""
