"""The loop that all waits share."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from pvc_core.model.errors import PvcError
from pvc_core.model.units import format_duration
from pvc_core.ops.context import Ops
from pvc_core.store.api import StoreUnavailable

T = TypeVar("T")
C_co = TypeVar("C_co", covariant=True)

RESYNC_S: Final = 5.0
"""Look again this often without any event: covers a watch that was lost."""

LOST_S: Final = 60.0
"""A node that stays without lease for this long is not waited for any longer."""


class Progress(NamedTuple):
    """What is seen while waiting."""

    message: str
    fraction: float | None = None
    """0.0 to 1.0, or None when that is unknown."""


Report = Callable[[Progress], None]
"""Called in the waiting thread each time something changed."""


class WaitFailed(PvcError):
    """What was waited for cannot come any more; the message says why."""


class WaitTimeout(PvcError):
    """It did not come in time; the job goes on."""


@dataclass(frozen=True)
class Done(Generic[C_co]):
    """It is there."""

    value: C_co


Look = Callable[[], Done[T] | Progress]
"""Reads what is waited for; raises WaitFailed."""


def wait_until(
    ops: Ops, what: str, paths: Iterable[str], look: Look[T], *, timeout_s: float, report: Report | None
) -> T:
    """Return what ``look`` finds, which is called once now and then after each change at or below ``paths``.

    An outage of the store is waited out within the time limit.  Raises WaitFailed, WaitTimeout, StoreUnavailable.
    """
    changed = threading.Event()
    for path in paths:
        ops.store.watch(path, lambda _: changed.set())
    ops.store.watch_state(lambda _: changed.set())
    deadline = ops.monotonic() + timeout_s
    last: Progress | None = None
    while True:
        changed.clear()
        outage: StoreUnavailable | None = None
        try:
            found: Done[T] | Progress = look()
        except StoreUnavailable as error:
            outage = error
            found = Progress("the state store does not answer")
        if not isinstance(found, Progress):
            return found.value
        if report is not None and found != last:
            report(found)
        last = found
        left = deadline - ops.monotonic()
        if left <= 0:
            if outage is not None:
                raise outage
            raise WaitTimeout(f"{what} after {format_duration(timeout_s)}: {found.message}; it goes on all the same")
        changed.wait(min(left, RESYNC_S))


class Patience:
    """Counts for how long a node has had no lease."""

    def __init__(self, ops: Ops, limit_s: float = LOST_S) -> None:
        self._ops = ops
        self._limit_s = limit_s
        self._since: float | None = None

    def check(self, node: str, *, alive: bool) -> Progress | None:
        """Return what to say of a node that is not alive, None when it is; raises WaitFailed after the limit."""
        if alive:
            self._since = None
            return None
        now = self._ops.monotonic()
        since = self._since = now if self._since is None else self._since
        if now - since >= self._limit_s:
            raise WaitFailed(
                f"node {node} is not alive, so nothing happens there: look at it with 'pvc node info {node}'"
            )
        return Progress(f"node {node} is not alive; waiting for it to come back")
