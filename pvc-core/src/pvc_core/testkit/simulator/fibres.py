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


class FibreClosed(BaseException):
    """Raised in a fibre that waits when the simulation is over.  Not an Exception: nothing may survive it."""


class _Thread:
    """A thread that runs one fibre after the other; the gates are locks that are released by whoever may pass next."""

    def __init__(self) -> None:
        self.fibre: Fibre | None = None
        self._go = threading.Lock()
        self._back = threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._thread = threading.Thread(target=self._loop, name="fibre", daemon=True)
        self._thread.start()

    def run(self) -> None:
        """Let the fibre go on until it waits or ends."""
        self._go.release()
        if not self._back.acquire(timeout=_STUCK_S):
            raise AssertionError("a simulated thread waits for something that is not virtual: a lock, or real time")

    def give_way(self) -> None:
        """In the fibre: let the simulator go on."""
        self._back.release()
        self._go.acquire()

    def end(self) -> None:
        """End the thread, which has no fibre."""
        self._go.release()
        self._thread.join()

    def _loop(self) -> None:
        self._go.acquire()
        while self.fibre is not None:
            self.fibre.work()
            self._back.release()
            self._go.acquire()


class Fibre:
    """One function on its way."""

    def __init__(self, function: Callable[[], None], label: str, thread: _Thread) -> None:
        self._function = function
        self._thread = thread
        self.label = label
        """What it is about, for those who meet it."""
        self._thrown: BaseException | None = None
        self._raised: BaseException | None = None
        self.done = False
        thread.fibre = self

    def resume(self, error: BaseException | None = None) -> None:
        """Let it go on until it waits again or ends; ``error`` is raised where it waits.  Raises what ends it."""
        self._thrown = error
        self._thread.run()
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised

    def wait(self) -> None:
        """In the fibre: give way until it is resumed."""
        self._thread.give_way()
        if self._thrown is not None:
            raise self._thrown

    def work(self) -> None:
        """In the thread: run the function to its end."""
        try:
            if self._thrown is None:
                self._function()
        except BaseException as error:
            self._raised = error
        self.done = True


class Fibres:
    """All fibres of a simulation."""

    def __init__(self) -> None:
        self.current: Fibre | None = None
        self._waiting: dict[Fibre, _Thread] = {}
        self._idle: list[_Thread] = []

    def start(self, function: Callable[[], None], label: str = "") -> Fibre:
        """Run a function until it waits or ends.  Raises what it raises by then."""
        thread = self._idle.pop() if self._idle else _Thread()
        fibre = Fibre(function, label, thread)
        self._waiting[fibre] = thread
        self.resume(fibre)
        return fibre

    def resume(self, fibre: Fibre, error: BaseException | None = None) -> None:
        """Let a fibre go on until it waits again or ends.  Raises what it raises."""
        assert self.current is None, "fibres do not resume each other"
        self.current = fibre
        try:
            fibre.resume(error)
        finally:
            self.current = None
            if fibre.done:
                thread = self._waiting.pop(fibre)
                thread.fibre = None
                self._idle.append(thread)

    def wait(self) -> None:
        """In a fibre: give way until it is resumed."""
        assert self.current is not None, "only a fibre can wait"
        self.current.wait()

    def close(self) -> None:
        """End all fibres that still wait, and their threads."""
        while self._waiting:
            with contextlib.suppress(FibreClosed):
                self.resume(next(iter(self._waiting)), FibreClosed())
        while self._idle:
            self._idle.pop().end()


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
