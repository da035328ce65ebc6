"""The ZooKeeper server of a coordinator."""

import contextlib
import socket
from collections.abc import Sequence
from typing import Final

from pvc_core.testkit.lan import entered
from pvc_sandbox.control import Service
from pvc_sandbox.layout import Layout

PORT: Final = 2181
SERVICE: Final = "zookeeper"
_QUORUM_PORT: Final = 2888
_ELECTION_PORT: Final = 3888
_ANSWER_DEADLINE_S: Final = 1.0
_TICK_MS: Final = 500
_LONGEST_SYNC_S: Final = 3.0
_HEAP_MIB: Final = 96


def configure(layout: Layout, number: int, coordinators: Sequence[int], *, lease_s: float | None = None) -> Service:
    """Write the files of coordinator ``number`` and return its daemon; ``coordinators`` are the numbers of all.

    A leader that is silent for 3 s, or half of ``lease_s``, where the nodes' leases are short, is given up: until then no lease
    of a node that was lost with it ends, and then all of them are counted anew.
    """
    # Imported here: it brings kazoo, which only this needs.
    from pvc_core.testkit.zookeeper_server import Member, ServerOptions, write_server

    members = [
        Member(other, layout.cluster_address(other), PORT, _QUORUM_PORT, _ELECTION_PORT) for other in coordinators
    ]
    # Without fsync: a simulated power cut does not lose what the machine's kernel has taken.
    options = ServerOptions(tick_ms=_TICK_MS, sync_ticks=_sync_ticks(lease_s), heap_mib=_HEAP_MIB)
    argv = write_server(layout.node_state(number) / "zookeeper", number, members, options)
    return Service(name=SERVICE, argv=tuple(argv), log=str(layout.node_state(number) / "log/zookeeper.log"))


def _sync_ticks(lease_s: float | None) -> int:
    silence_s = _LONGEST_SYNC_S if lease_s is None else min(_LONGEST_SYNC_S, lease_s / 2)
    return max(2, int(1000 * silence_s / _TICK_MS))


def mode(layout: Layout, number: int) -> str:
    """Return the server's part in the ensemble: leader, follower or standalone; empty while it serves nobody."""
    return facts(layout, number).get("Mode", "")


def facts(layout: Layout, number: int) -> dict[str, str]:
    """Return what the server says of itself (its command ``srvr``), by name; empty while it serves nobody.

    A server answers only while it is part of a quorum.
    """
    lines = _ask(layout, number, b"srvr").splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def _ask(layout: Layout, number: int, word: bytes) -> str:
    with contextlib.suppress(OSError):
        with entered(layout.switch):
            connection = socket.create_connection((layout.cluster_address(number), PORT), _ANSWER_DEADLINE_S)
        with connection:
            connection.sendall(word)
            received = bytearray()
            while part := connection.recv(4096):
                received += part
            return received.decode("utf-8", "replace")
    return ""
