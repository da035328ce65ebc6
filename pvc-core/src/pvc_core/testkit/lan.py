"""A small network for tests: one network namespace per host, joined by a switch that has one of its own.

The machine's own network is not touched.  Needs root.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pvc_core.plugin.process import run

_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


@contextmanager
def entered(namespace: str | Path) -> Iterator[None]:
    """Have this thread, and those that it starts, in a network namespace; the thread comes back at the end.

    ``namespace`` is a name as of ``ip netns``, or the path of a namespace file.  A socket belongs for ever to the
    namespace in which it was made.
    """
    with Path("/proc/thread-self/ns/net").open("rb") as home, Path("/run/netns", namespace).open("rb") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


class Lan:
    """Hosts 1 to ``hosts`` with the addresses ``10.77.0.<host>``; the switch is host 0, ``10.77.0.254``."""

    def __init__(self, hosts: int, *, name: str) -> None:
        """``name`` begins the names of the namespaces and must be unique on the machine."""
        self.name = name
        self.hosts = range(1, hosts + 1)
        try:
            self._create()
        except BaseException:
            self.close()
            raise

    def namespace(self, host: int) -> str:
        """Return the name of a host's namespace."""
        return f"{self.name}-{host}"

    def address(self, host: int) -> str:
        """Return a host's address."""
        return f"10.77.0.{host or 254}"

    def cut(self, host: int) -> None:
        """Pull a host's cable: its packets vanish in silence, both ways."""
        self._ip(0, "link", "set", f"port{host}", "down")

    def heal(self, host: int) -> None:
        """Plug the cable in again."""
        self._ip(0, "link", "set", f"port{host}", "up")

    def close(self) -> None:
        """Delete the namespaces, and with them all links."""
        for host in (0, *self.hosts):
            if Path("/run/netns", self.namespace(host)).exists():
                run(["ip", "netns", "delete", self.namespace(host)], deadline_s=10).check()

    def _create(self) -> None:
        for host in (0, *self.hosts):
            run(["ip", "netns", "add", self.namespace(host)], deadline_s=10).check()
            self._ip(host, "link", "set", "lo", "up")
        self._ip(0, "link", "add", "switch", "type", "bridge", "forward_delay", "0", "stp_state", "0")
        self._ip(0, "address", "add", f"{self.address(0)}/24", "dev", "switch")
        self._ip(0, "link", "set", "switch", "up")
        for host in self.hosts:
            there = self.namespace(host)
            self._ip(0, "link", "add", f"port{host}", "type", "veth", "peer", "name", "eth0", "netns", there)
            self._ip(0, "link", "set", f"port{host}", "master", "switch", "up")
            self._ip(host, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            self._ip(host, "link", "set", "eth0", "up")

    def _ip(self, host: int, *arguments: str) -> None:
        run(["ip", "-n", self.namespace(host), *arguments], deadline_s=10).check()


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter a network namespace: {os.strerror(number)}")
