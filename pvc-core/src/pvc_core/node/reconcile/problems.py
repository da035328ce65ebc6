"""What goes wrong with a driver, as a condition of the object: for people, scripts and the scheduler."""

from typing import Final

from pvc_core.model.base import Condition
from pvc_core.plugin.errors import (
    AuthFailed,
    CircuitOpen,
    DeadlineExceeded,
    DriverError,
    NotReady,
    ObjectBusy,
    ObjectExists,
    ObjectMissing,
    PluginContractError,
    Unsupported,
)

READY: Final = "Ready"
"""Type of the condition that says whether an object is as its spec wants."""

_REASONS: Final[tuple[tuple[type[DriverError], str], ...]] = (
    (NotReady, "BackendNotReady"),
    (ObjectBusy, "Busy"),
    (ObjectMissing, "Missing"),
    (ObjectExists, "Exists"),
    (AuthFailed, "AuthFailed"),
    (Unsupported, "Unsupported"),
    (DeadlineExceeded, "Timeout"),
    (CircuitOpen, "DriverStuck"),
    (PluginContractError, "DriverDefect"),
)


def ready(now: float) -> Condition:
    """Return the condition of an object that is as its spec wants; ``now`` is for display."""
    return Condition(type=READY, ok=True, reason="Ready", since=now)


def not_ready(reason: str, message: str, now: float) -> Condition:
    """Return the condition of an object that is not as its spec wants."""
    return Condition(type=READY, ok=False, reason=reason, message=message, since=now)


def problem(error: DriverError, now: float) -> Condition:
    """Return the condition that says what a driver refused or could not do."""
    reason = next((word for kind, word in _REASONS if isinstance(error, kind)), "Failed")
    return not_ready(reason, str(error), now)
