"""The person's terminal in raw mode, joined to a guest's console."""

import os
import select
import signal
import socket
import sys
import termios
import time
import tty
from types import FrameType, TracebackType
from typing import Any, Final, Self

ESCAPE: Final = b"\x1d"
"""Ctrl-]: ends the connection, as in telnet and virsh."""
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


class Terminal:
    """Standard input and output in raw mode while the ``with`` block runs; restored whatever ends it."""

    def __init__(self) -> None:
        self._stdin = sys.stdin.fileno()
        self._stdout = sys.stdout.fileno()
        self._before: list[Any] = []
        self._handlers: list[Any] = []

    def __enter__(self) -> Self:
        sys.stdout.flush()
        self._before = termios.tcgetattr(self._stdin)
        # Without this a SIGTERM would end the process at once, and leave the terminal raw.
        self._handlers = [signal.signal(sign, _end) for sign in _ENDING]
        tty.setraw(self._stdin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._stdin, termios.TCSAFLUSH, self._before)
        for sign, handler in zip(_ENDING, self._handlers, strict=True):
            signal.signal(sign, handler)

    def write(self, data: bytes) -> None:
        """Show bytes as they are."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._stdout, view) :]

    def pause(self, seconds: float) -> bool:
        """Wait; True as soon as the person asks for the end.  What else is typed is lost: nobody is there."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._stdin], [], [], left)[0]:
                typed = os.read(self._stdin, 4096)
                if not typed or ESCAPE in typed:
                    return True
        return False

    def relay(self, connection: socket.socket) -> bool:
        """Carry bytes both ways and close the connection at the end; True when the person ended it."""
        with connection:
            while True:
                readable, _, _ = select.select([self._stdin, connection], [], [])
                if connection in readable:
                    try:
                        data = connection.recv(65536)
                    except OSError:
                        return False
                    if not data:
                        return False
                    self.write(data)
                if self._stdin in readable:
                    typed = os.read(self._stdin, 4096)
                    before, escape, _ = typed.partition(ESCAPE)
                    try:
                        connection.sendall(before)
                    except OSError:
                        return False
                    if escape or not typed:
                        return True


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
