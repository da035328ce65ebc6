"""A node's watchdog: ``python -m pvc_sandbox.watchdog STATE NODE LOCK_FD``, a program in place of a device.

It lives outside the node, so it goes on when everything there hangs; a power cut ends it, a boot starts another one.
It resets the node, that is: cuts its power and after a while switches it on again, when it is not fed in time.

One connection to its socket, ``/run/watchdog.sock`` on the node, is the open device.  Lines:

========================  ============================================================================
``timeout SECONDS``       sets the time-out and feeds; answers ``timeout SECONDS``, as it is now
``feed``                  starts the time anew; no answer
``disarm``                stops the counting; answers ``disarmed``
anything else             answers ``error REASON``
========================  ============================================================================

Counting begins with the first ``timeout`` or ``feed``.  As with a kernel's watchdog that is closed without the magic
character, the end of the connection changes nothing; a new one takes over from the one before and does not feed.
"""

import contextlib
import logging
import os
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Final

from pvc_sandbox.boot import Watchdog, load_boot
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.host import WATCHDOG_SOCKET, Host
from pvc_sandbox.layout import load_layout
from pvc_sandbox.records import ProcessRecord, go_on_recorded

DEFAULT_TIMEOUT_S: Final = 10.0
SHORTEST_S: Final = 0.5
LONGEST_S: Final = 600.0
_LONGEST_LINE: Final = 256

_log = logging.getLogger("watchdog")


class Countdown:
    """The time that is left; ``now`` is seconds on any clock that only goes forward."""

    def __init__(self) -> None:
        self.timeout_s = DEFAULT_TIMEOUT_S
        self._end: float | None = None

    def left_s(self, now: float) -> float | None:
        """Return the time left, 0 when it is over, None while nothing is counted."""
        return None if self._end is None else max(0.0, self._end - now)

    def obey(self, line: str, now: float) -> str:
        """Do what a line says and return the answer, empty for none; when the time is over, nothing helps any more."""
        if self.left_s(now) == 0:
            return "error too late"
        armed = self._end is not None
        match line.split():
            case ["timeout", seconds]:
                try:
                    wanted = float(seconds)
                except ValueError:
                    return f"error {seconds!r} is no number of seconds"
                if not SHORTEST_S <= wanted <= LONGEST_S:  # also for NaN
                    return f"error {SHORTEST_S:g} to {LONGEST_S:g} seconds"
                self.timeout_s = wanted
                self._end = now + wanted
                answer = f"timeout {wanted:g}"
            case ["feed"]:
                self._end = now + self.timeout_s
                answer = ""
            case ["disarm"]:
                self._end = None
                _log.info("disarmed")
                return "disarmed"
            case _:
                return f"error unknown line {line!r}"
        if not armed:
            _log.info("armed: resets the node when it is not fed for %g s", self.timeout_s)
        return answer


class Device:
    """Listens on a socket and counts down, in one thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._countdown = Countdown()
        self._client: socket.socket | None = None
        self._unread = b""
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self, node: int) -> bool:
        """Return when the node must be reset, or False when it ended by itself; ``node`` is its process's descriptor."""
        self._selector.register(node, selectors.EVENT_READ)
        while True:
            left_s = self._countdown.left_s(time.monotonic())
            if left_s == 0:
                _log.warning("not fed for %g s", self._countdown.timeout_s)
                return True
            for key, _ in self._selector.select(left_s):
                if key.fileobj == node:
                    return False
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._client:  # not one that was replaced just now
                    self._read(self._client)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # it has gone away again
            client, _ = self._listener.accept()
            self._close()
            client.setblocking(False)
            self._client = client
            self._selector.register(client, selectors.EVENT_READ)
            _log.info("opened")

    def _read(self, client: socket.socket) -> None:
        try:
            received = client.recv(4096)
        except BlockingIOError:
            return
        except ConnectionError:
            received = b""
        if not received:
            _log.info("closed")
            self._close()
            return
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            self._answer(client, self._countdown.obey(line.decode("utf-8", "replace"), time.monotonic()))
        if len(self._unread) > _LONGEST_LINE:
            self._answer(client, "error the line is too long")
            self._unread = b""

    def _answer(self, client: socket.socket, answer: str) -> None:
        if answer:
            # Whoever does not read its answers goes without them: the counting must not wait.
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.send(answer.encode() + b"\n")

    def _close(self) -> None:
        if self._client is not None:
            self._selector.unregister(self._client)
            self._client.close()
            self._client = None
            self._unread = b""


def main() -> None:
    """Become a node's watchdog; the process that was called ends as soon as that is recorded."""
    state, node, lock = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    layout = load_layout(state)
    if layout is None:
        raise SandboxError(f"no sandbox in {state}")
    host = Host(layout, layout.node_number(node))
    settings, power = load_boot(host.state).watchdog, host.power
    if settings is None or power is None:
        raise SandboxError(f"{node} is off, or has no watchdog")
    path = host.run / WATCHDOG_SOCKET
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        go_on_recorded(layout.watchdog_record(host.number), lock)
        _log_to(host.state / "log/watchdog.log")
        if Device(listener).run(os.pidfd_open(power.pid)):
            _reset(host, power, settings)


def _log_to(path: Path) -> None:
    logging.basicConfig(filename=path, level=logging.INFO, format="%(asctime)s %(message)s")


def _reset(host: Host, power: ProcessRecord, settings: Watchdog) -> None:
    if not host.power_cut(of=power):
        return
    _log.warning("power is off")
    if settings.reboot_s >= 0:
        time.sleep(settings.reboot_s)
        host.boot()  # whoever else switches it on or off meanwhile ends this process
        _log.warning("power is on")


if __name__ == "__main__":
    main()
