"""Telling the service manager how we are: sd_notify(3), by hand, as it is one datagram."""

import logging
import os
import socket
from typing import Final

log = logging.getLogger(__name__)

_MICROSECONDS: Final = 1_000_000


class ServiceManager:
    """What systemd (or whoever set NOTIFY_SOCKET) is told; without one every call does nothing.

    Protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
    """

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        values = dict(os.environ) if environment is None else environment
        path = values.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte of an abstract socket's name.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        usec, pid = values.get("WATCHDOG_USEC", ""), values.get("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        self.watchdog_s = int(usec) / _MICROSECONDS if usec.isdigit() and ours else None
        """We are killed unless ``alive`` is called this often; None: nobody watches."""

    def ready(self, status: str) -> None:
        """Say that the daemon works."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """Say in one line what the daemon is doing."""
        self._send(f"STATUS={text}")

    def waiting(self, text: str) -> None:
        """Say what the start waits for, and that it may take another minute."""
        self._send(f"STATUS={text}\nEXTEND_TIMEOUT_USEC={60 * _MICROSECONDS}")

    def alive(self) -> None:
        """Keep the watchdog quiet."""
        self._send("WATCHDOG=1")

    def reloading(self, monotonic_s: float) -> None:
        """Say that the configuration is read again; ``ready`` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(monotonic_s * _MICROSECONDS)}")

    def stopping(self) -> None:
        """Say that the daemon is ending."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.connect(self._address)
                sender.sendall(message.encode())
        except OSError as error:
            # It would only cost the manager's view of us, never the work.
            log.warning("notify-failed error=%s", error)
