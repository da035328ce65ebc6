"""Functions that can wait in virtual time.

A driver's call that takes 20 s, or a daemon that is stopped in the middle of an action, must not keep the simulator
from going on.  A fibre is a function on a thread of its own that runs only while the simulator waits for it: one of all
threads runs at any time, so a run stays deterministic.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Final

_STUCK_S: Final = 60.0
"""Real seconds after which a fibre is taken for blocked by something that is not virtual, such as a lock."""


def _closed_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


class FibreClosed(BaseException):
    """Raised in a fibre that waits when the simulation is over.  Not an Exception: nothing may survive it."""


class Fibre:
    """One function on its way."""

    def __init__(self, function: Callable[[], None], label: str) -> None:
        self._function = function
        self.label = label
        """What it is about, for those who meet it."""
        self._go = _closed_gate()
        self._back = _closed_gate()
        self._thrown: BaseException | None = None
        self._raised: BaseException | None = None
        self.done = False
        self._thread = threading.Thread(target=self._body, name="fibre", daemon=True)

    def resume(self, error: BaseException | None = None) -> None:
        """Let it go on until it waits again or ends; ``error`` is raised where it waits.  Raises what ends it."""
        self._thrown = error
        self._go.release()
        if not self._thread.ident:
            self._thread.start()
        if not self._back.acquire(timeout=_STUCK_S):
            raise AssertionError("a simulated thread waits for something that is not virtual: a lock, or real time")
        if self.done:
            self._thread.join()
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def wait(self) -> None:
        """In the fibre: give way until it is resumed."""
        self._back.release()
        self._go.acquire()
        if self._thrown is not None:
            raise self._thrown

    def _body(self) -> None:
        self._go.acquire()
        try:
            if self._thrown is None:
                self._function()
        except BaseException as error:
            self._raised = error
        self.done = True
        self._back.release()


class Fibres:
    """All fibres of a simulation."""

    def __init__(self) -> None:
        self.current: Fibre | None = None
        self._waiting: dict[Fibre, None] = {}

    def start(self, function: Callable[[], None], label: str = "") -> Fibre:
        """Run a function until it waits or ends.  Raises what it raises by then."""
        fibre = Fibre(function, label)
        self.resume(fibre)
        return fibre

    def resume(self, fibre: Fibre, error: BaseException | None = None) -> None:
        """Let a fibre go on until it waits again or ends.  Raises what it raises."""
        assert self.current is None, "fibres do not resume each other"
        self.current = fibre
        self._waiting.pop(fibre, None)
        try:
            fibre.resume(error)
        finally:
            self.current = None
            if not fibre.done:
                self._waiting[fibre] = None

    def wait(self) -> None:
        """In a fibre: give way until it is resumed."""
        assert self.current is not None, "only a fibre can wait"
        self.current.wait()

    def close(self) -> None:
        """End all fibres that still wait."""
        while self._waiting:
            with contextlib.suppress(FibreClosed):
                self.resume(next(iter(self._waiting)), FibreClosed())


class FibreLock:
    """A lock of threads in virtual time: a context manager."""

    def __init__(self, fibres: Fibres, go_on: Callable[[Fibre], None]) -> None:
        """``go_on`` has a fibre resumed later."""
        self._fibres = fibres
        self._go_on = go_on
        self._held = False
        self._waiting: list[Fibre] = []

    def __enter__(self) -> None:
        while self._held:
            fibre = self._fibres.current
            assert fibre is not None, "a worker of the daemon waits for a device"
            self._waiting.append(fibre)
            self._fibres.wait()
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False
        if self._waiting:
            self._go_on(self._waiting.pop(0))
