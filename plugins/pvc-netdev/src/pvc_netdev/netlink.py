"""What the kernel has, asked by netlink and read as bytes: for what is asked often, of hosts with thousands of devices.

A listing of 1,000 devices takes pyroute2 0.7 s of a processor's time, as it decodes every attribute of each.  Here the attributes
stay bytes until somebody asks for one.  Changes are made by pyroute2 (``links``).

Source: netlink(7), rtnetlink(7), ``linux/netlink.h``.
"""

import os
import socket
import struct
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self

ROUTE: Final = 0
"""The family of netlink for devices, addresses, routes (rtnetlink(7))."""
NETFILTER: Final = 12

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERROR: Final = struct.Struct("=i")
_REQUEST: Final = 0x01
_DUMP: Final = 0x300
_DUMP_INTERRUPTED: Final = 0x10
"""Things changed while they were listed, so some may be missing."""
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_TYPE: Final = 0x3FFF
"""Without the flags for nested attributes and byte order."""
_SOL_NETLINK: Final = 270
_NETLINK_GET_STRICT_CHK: Final = 12
_ANSWER_BYTES: Final = 1 << 17
_TIMEOUT_S: Final = 20.0


class Changed(OSError):
    """What was listed changed meanwhile."""


class Message(NamedTuple):
    """An answer."""

    head: bytes
    """As long as the head of the request; what it has is up to the kind."""
    attributes: dict[int, bytes]


class Netlink:
    """A netlink socket in the network namespace of the calling thread.  Errors of the kernel are OSError."""

    def __init__(self, family: int = ROUTE) -> None:
        self._socket: Final = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.settimeout(_TIMEOUT_S)
        if family == ROUTE:
            # Without it the kernel ignores what a listing is narrowed by (since Linux 4.20).
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def get(self, kind: int, head: bytes, attributes: bytes = b"") -> Message:
        """Return the one thing that is asked for."""
        self._send(kind, _REQUEST, head + attributes)
        return next(self._answers(len(head)))

    def list(self, kind: int, head: bytes, attributes: bytes = b"") -> list[Message]:
        """Return all things that are asked for.  Raises Changed when some may be missing."""
        self._send(kind, _REQUEST | _DUMP, head + attributes)
        return list(self._answers(len(head)))

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def _answers(self, head: int) -> Iterator[Message]:
        interrupted = False
        while True:
            data = self._socket.recv(_ANSWER_BYTES)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
                begin, at = at + _HEADER.size, at + _aligned(length)
                if sequence != self._sequence:
                    continue  # of a request whose answer was not waited for
                interrupted = interrupted or bool(flags & _DUMP_INTERRUPTED)
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    code = -_ERROR.unpack_from(data, begin)[0] if length > _HEADER.size else 0
                    if code:
                        raise OSError(code, os.strerror(code))
                    if interrupted:
                        raise Changed("they changed while they were listed")
                    return
                end = begin - _HEADER.size + length
                yield Message(data[begin : begin + head], parse(data, begin + _aligned(head), end))


def parse(data: bytes, begin: int = 0, end: int | None = None) -> dict[int, bytes]:
    """Return the attributes in some bytes, by type: of those that are there several times the last."""
    end = len(data) if end is None else end
    found = {}
    while begin + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, begin)
        found[kind & _TYPE] = data[begin + 4 : begin + length]
        begin += _aligned(max(length, 4))
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute of a request."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def text(value: bytes | None) -> str:
    """Return a string of the kernel's; empty when it said none."""
    return value.partition(b"\0")[0].decode("utf-8", "replace") if value else ""


def number(value: bytes | None) -> int:
    """Return a number of the host's byte order; 0 when it said none."""
    return int.from_bytes(value, sys.byteorder) if value else 0


def _aligned(length: int) -> int:
    return (length + 3) & ~3
