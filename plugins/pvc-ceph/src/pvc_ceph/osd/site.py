"""What the flows of OSDs work with on a node."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

from pvc_ceph.osd import devices
from pvc_ceph.osd.layout import Layout
from pvc_ceph.osd.monitors import Monitors
from pvc_ceph.osd.unfinished import Unfinished
from pvc_ceph.osd.values import Block
from pvc_core.plugin import Cancelled, DriverError, Run, TaskProgress

POLL_S: Final = 1.0
PATIENCE_S: Final = 300.0
"""For how long a wait goes on while Ceph does not answer: managers and monitors take over from one another."""
T = TypeVar("T")


class Disks(Protocol):
    """The disks of this node.  Raises DriverError."""

    def all(self) -> list[Block]:
        """Return all of them."""

    def one(self, device: str) -> Block:
        """Return one, called by any of its paths."""

    def signatures(self, block: Block) -> tuple[str, ...]:
        """Return what begins on it."""

    def is_busy(self, block: Block) -> bool:
        """Return whether somebody has it for himself alone."""


class KernelDisks:
    """Those of the running kernel."""

    def __init__(self, run: Run) -> None:
        self._run: Final = run

    def all(self) -> list[Block]:
        return devices.all_blocks(self._run)

    def one(self, device: str) -> Block:
        return devices.one_block(self._run, device)

    def signatures(self, block: Block) -> tuple[str, ...]:
        return devices.signatures(self._run, block.path)

    def is_busy(self, block: Block) -> bool:
        return devices.is_busy(block.path)


class Site:
    """A node, its disks, and the cluster.  One flow at a time: see ``turn``."""

    def __init__(
        self,
        *,
        node: str,
        monitors: Monitors,
        layout: Layout,
        disks: Disks,
        unfinished: Unfinished,
        settle: Callable[[], None],
        log: logging.Logger,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``settle`` waits for programs that an earlier daemon started."""
        self.node: Final = node
        self.monitors: Final = monitors
        self.layout: Final = layout
        self.disks: Final = disks
        self.unfinished: Final = unfinished
        self.settle: Final = settle
        self.log: Final = log
        self.pause: Final = pause
        self.clock: Final = clock
        self._turn: Final = threading.Lock()

    @contextmanager
    def turn(self, course: "Course") -> Iterator[None]:
        """Wait until no other flow works on this node's disks.  Raises Cancelled."""
        while not self._turn.acquire(timeout=POLL_S):
            course.safe(0.0)
        try:
            self.settle()
            yield
        finally:
            self._turn.release()

    def ask(self, question: Callable[[], T], course: "Course", part: float) -> T:
        """Return the answer to a question that is asked again and again in a wait; no answer does not end the wait.

        Raises DriverError when it cannot be answered, or was not for ``PATIENCE_S``; Cancelled.
        """
        deadline = self.clock() + PATIENCE_S
        while True:
            try:
                return question()
            except DriverError as error:
                if not error.retryable or self.clock() >= deadline:
                    raise
                self.log.info("osd-wait-goes-on error=%s", error)
            course.safe(part)
            self.pause(POLL_S)


class Course:
    """How far a flow is."""

    def __init__(self, progress: TaskProgress, *, can_stop: bool = True) -> None:
        self._progress: Final = progress
        self._can_stop: Final = can_stop

    def safe(self, part: float) -> None:
        """Tell it; raises Cancelled when the flow is to stop: here it can."""
        if self._progress(part) and self._can_stop:
            raise Cancelled("cancelled")

    def on(self, part: float) -> None:
        """Tell it, where the flow cannot stop."""
        self._progress(part)

    def without_return(self) -> "Course":
        """Return the same, for what is past the point up to which it can be cancelled."""
        return Course(self._progress, can_stop=False)

    def say(self, message: str) -> None:
        """Tell people what it waits for; empty: nothing any more."""
        self._progress.say(message)
