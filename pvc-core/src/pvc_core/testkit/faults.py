"""Faults and delays for the fakes: what goes wrong with which call, and how often."""

import functools
import threading
import time
from collections.abc import Callable
from typing import Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

from pvc_core.plugin.errors import NotReady

P = ParamSpec("P")
R = TypeVar("R")


class _Fault(NamedTuple):
    hook: str
    error: BaseException
    after_effect: bool


class Faults:
    """What goes wrong with a fake's calls.  Every method may be called from any thread.

    ``sleep`` is how a delay passes: the simulator gives its virtual clock's.
    """

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._lock = threading.Lock()
        self._queued: list[_Fault] = []
        self._lasting: dict[str, _Fault] = {}
        self._delays: dict[str, float] = {}
        self._gates: dict[str, threading.Event] = {}
        self.calls: list[str] = []
        """Names of the hooks called, in order."""

    def fail(self, hook: str, error: BaseException | None = None, *, times: int = 1) -> None:
        """Let the next ``times`` calls of a hook raise before they do anything."""
        self._queue(hook, error, times, after_effect=False)

    def lose_answer(self, hook: str, error: BaseException | None = None, *, times: int = 1) -> None:
        """Let the next ``times`` calls of a hook do their work and raise all the same, as a lost answer does."""
        self._queue(hook, error, times, after_effect=True)

    def fail_always(self, hook: str, error: BaseException | None = None) -> None:
        """Let every call of a hook raise, until ``clear``."""
        with self._lock:
            self._lasting[hook] = _Fault(hook, error or NotReady(f"injected fault in {hook}"), after_effect=False)

    def delay(self, hook: str, seconds: float) -> None:
        """Let every call of a hook take this long, until ``clear``."""
        with self._lock:
            self._delays[hook] = seconds

    def hang(self, hook: str) -> threading.Event:
        """Let every call of a hook wait for the returned event (or ``clear``)."""
        gate = threading.Event()
        with self._lock:
            self._gates[hook] = gate
        return gate

    def clear(self) -> None:
        """Let everything work again; hanging calls go on."""
        with self._lock:
            self._queued.clear()
            self._lasting.clear()
            self._delays.clear()
            gates = list(self._gates.values())
            self._gates.clear()
        for gate in gates:
            gate.set()

    def count(self, hook: str) -> int:
        """Return how often a hook was called."""
        with self._lock:
            return self.calls.count(hook)

    def before(self, hook: str) -> None:
        """Note a call and do what was asked for it: wait, then raise or return."""
        with self._lock:
            self.calls.append(hook)
            delay, gate = self._delays.get(hook), self._gates.get(hook)
            fault = self._take(hook, after_effect=False) or self._lasting.get(hook)
        if delay is not None:
            self._sleep(delay)
        if gate is not None:
            gate.wait()
        if fault is not None:
            raise fault.error

    def after(self, hook: str) -> None:
        """Raise when the answer of this call was to be lost."""
        with self._lock:
            fault = self._take(hook, after_effect=True)
        if fault is not None:
            raise fault.error

    def _queue(self, hook: str, error: BaseException | None, times: int, *, after_effect: bool) -> None:
        fault = _Fault(hook, error or NotReady(f"injected fault in {hook}"), after_effect)
        with self._lock:
            self._queued.extend([fault] * times)

    def _take(self, hook: str, *, after_effect: bool) -> _Fault | None:
        for index, fault in enumerate(self._queued):
            if fault.hook == hook and fault.after_effect == after_effect:
                return self._queued.pop(index)
        return None


class HasFaults(Protocol):
    """A fake."""

    @property
    def faults(self) -> Faults:
        """What goes wrong with it."""


F = TypeVar("F", bound=HasFaults)


def faulty(method: Callable[Concatenate[F, P], R]) -> Callable[Concatenate[F, P], R]:
    """Let a fake's method do what its ``faults`` ask for."""

    def call(self: F, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.faults.before(method.__name__)
        result = method(self, *args, **kwargs)
        self.faults.after(method.__name__)
        return result

    functools.update_wrapper(call, method)
    return call
