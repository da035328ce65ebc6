"""The processes that talk to Ceph for the driver.

librados and librbd may wait for ever (monitors gone, a pool that has lost its replicas, a full cluster) and abort the
process on an assertion.  So they are used in worker processes only: one that does not answer in time is killed, and
the node's daemon, with its lease, is not concerned.  Every call is idempotent, so a killed one is repeated.
"""

import contextlib
import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any, Final, TypeVar, cast

import msgspec

from pvc_ceph.protocol import (
    HEAD,
    MAX_BODY,
    Answer,
    Call,
    ClientBlocked,
    Connected,
    Done,
    Open,
    Proceed,
    Progress,
    exception,
)
from pvc_core.plugin import Cancelled, DriverError, NotReady

T = TypeVar("T")
Report = Callable[[float], bool]
"""Gets the part done; returns True when the call shall stop."""

_IDLE_S: Final = 120.0
"""A worker that had nothing to do for so long is ended; one stays."""
_ENDING_S: Final = 3.0
_DIAGNOSIS_S: Final = 2.5
"""What is kept of a call's time, at the most, to find out why it was late."""


class WorkerLost(DriverError):
    """A worker ended, or was killed, in the middle of a call."""


class _Late(Exception):
    """A worker did not answer in time."""


class Worker:
    """One process.  For one thread at a time."""

    def __init__(self, settings: Open) -> None:
        self.idle_since = time.monotonic()
        self.address = ""
        """By which Ceph knows it, once it is connected."""
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            # -P: what lies in the daemon's working directory is not to be imported.
            [sys.executable, "-P", "-m", "pvc_ceph.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            bufsize=0,
            # A signal for the daemon's process group (Ctrl-C on a terminal) is the daemon's alone.
            start_new_session=True,
        )
        self._send(settings)

    def call(self, call: Call, deadline: float, report: Report | None) -> Any:
        """Have it do something by a deadline (monotonic clock) and return the result.

        With a report the time begins anew each time that it tells how far it is.

        Raises DriverError and its kinds, Cancelled; WorkerLost and _Late leave it unusable.
        """
        span = deadline - time.monotonic()
        self._send(call)
        while True:
            answer = msgspec.msgpack.decode(self._receive(deadline), type=Answer)
            if isinstance(answer, Connected):
                self.address = answer.address
            elif isinstance(answer, Progress):
                self._send(Proceed(stop=report is not None and report(answer.done)))
                if report is not None:
                    deadline = time.monotonic() + span
            elif isinstance(answer, Done):
                self.idle_since = time.monotonic()
                return answer.value
            elif answer.defect:
                raise WorkerLost(answer.message)
            else:
                self.idle_since = time.monotonic()
                raise exception(answer)

    def alive(self) -> bool:
        """Return whether the process is there."""
        return self._process.poll() is None

    def end(self) -> None:
        """End it: it is idle, and ends when its input does."""
        cast("IO[bytes]", self._process.stdin).close()
        try:
            self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._close()

    def kill(self) -> None:
        """Kill it, whatever it does."""
        self._process.kill()
        self._close()

    def last_words(self) -> str:
        """Return the end of what it wrote to its standard error."""
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - 2000))
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return " / ".join(lines[-2:]) or "nothing"

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process.wait()
        self._said.close()

    def _send(self, message: msgspec.Struct) -> None:
        body = msgspec.msgpack.encode(message)
        view = memoryview(HEAD.pack(len(body)) + body)
        pipe = cast("IO[bytes]", self._process.stdin)
        try:
            while view:
                view = view[pipe.write(view) or 0 :]
        except BrokenPipeError:
            raise self._lost() from None

    def _receive(self, deadline: float) -> bytes:
        (length,) = HEAD.unpack(self._read(HEAD.size, deadline))
        if length > MAX_BODY:
            raise self._lost()
        return self._read(length, deadline)

    def _read(self, length: int, deadline: float) -> bytes:
        descriptor = cast("IO[bytes]", self._process.stdout).fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        data = bytearray()
        while len(data) < length:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise _Late
            part = os.read(descriptor, min(length - len(data), 1 << 20))
            if not part:
                raise self._lost()
            data += part
        return bytes(data)

    def _lost(self) -> WorkerLost:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING_S)
        status = self._process.poll()
        return WorkerLost(
            f"the process that talks to Ceph ended (status {status}); it said last: {self.last_words()}; see the node's log"
        )


class Workers:
    """As many workers as there are calls at the same time.  May be used from any thread."""

    def __init__(self, settings: Open, log: logging.Logger) -> None:
        self._settings: Final = settings
        self._log: Final = log
        self._lock: Final = threading.Lock()
        self._idle: list[Worker] = []
        self._dead: frozenset[str] = frozenset()
        """Clients that were killed at work.  Ceph waits for each of them for half a minute, unless it is told."""
        self._closed = False

    def call(
        self, result: type[T] | None, name: str, deadline_s: float, report: Report | None = None, /, **arguments: Any
    ) -> T:
        """Do a call of ``worker.calls`` and return its result as a ``result``, within ``deadline_s`` in all.

        With a report that is the time after which it was last heard of.  One that is late is killed.  Raises NotReady, which says what is wrong with Ceph as far as that can be found
        out, and whatever the call raises.
        """
        patience_s = deadline_s - min(_DIAGNOSIS_S, deadline_s / 3)
        call = Call(name=name, arguments=msgspec.to_builtins(arguments))
        try:
            value = self._call(call, patience_s, report)
        except _Late:
            why = self._diagnosis(deadline_s - patience_s)
            did = "carry out" if report is None else "go on with"
            raise NotReady(f"Ceph did not {did} {name} within {patience_s:g} s: {why}") from None
        return msgspec.convert(value, cast("type[T]", result))

    def close(self) -> None:
        """End all idle ones; others end when their call does.  May be called twice."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def processes(self) -> int:
        """Return how many are idle."""
        with self._lock:
            return len(self._idle)

    def _call(self, call: Call, patience_s: float, report: Report | None) -> Any:
        begun = time.monotonic()
        worker, fresh = self._take()
        dead = self._dead
        try:
            value = worker.call(msgspec.structs.replace(call, dead=tuple(dead)), begun + patience_s, report)
        except (WorkerLost, ClientBlocked, _Late) as error:
            self._log.warning("worker-lost call=%s error=%r said=%r", call.name, error, worker.last_words())
            with self._lock:
                self._bury(worker)
            if fresh or isinstance(error, _Late):
                raise
            # It died while it was idle, or keeps a connection that is refused for ever since its node was blocked: a new
            # client is let in when the node is open again.
            left_s = patience_s if report is not None else begun + patience_s - time.monotonic()
            return self._call(call, left_s, report)
        except (DriverError, Cancelled):
            self._put(worker)
            raise
        except BaseException:
            with self._lock:
                self._bury(worker)
            raise
        with self._lock:
            self._dead -= dead
        self._put(worker)
        return value

    def _take(self) -> tuple[Worker, bool]:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive():
                    return worker, False
                self._bury(worker)
        return Worker(self._settings), True

    def _bury(self, worker: Worker) -> None:
        worker.kill()
        self._dead |= {worker.address} - {""}

    def _put(self, worker: Worker) -> None:
        now = time.monotonic()
        with self._lock:
            if self._closed:
                old = [worker]
            else:
                self._idle.append(worker)
                # The last is the one that was used last, and is taken next.
                old = [w for w in self._idle[:-1] if now - w.idle_since > _IDLE_S]
                self._idle = [w for w in self._idle if w not in old]
        for each in old:
            each.end()

    def _diagnosis(self, patience_s: float) -> str:
        """Return what the monitors say is wrong."""
        try:
            found = msgspec.convert(self._call(Call(name="problems"), patience_s, None), list[str])
        except _Late:
            return "its monitors do not answer"
        except DriverError as error:
            return str(error)
        return "; ".join(found) or "its monitors report nothing that explains it"
