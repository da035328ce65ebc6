"""Which open connections go on when the rules change: those that the new rules accept, and no others.

Two obvious ways are wrong.  Accepting what connection tracking calls established lets a connection live on that no rule
accepts any more.  Flushing the tracking makes the next packet decide which way the connection goes: a server's answer is then
taken for a connection that the server begins, so that a download without a packet of the client's dies, and a connection into
the network whose rule was taken away lives on as one out of it.

So a connection is marked (``ct mark``) with the generation of the rules that accepted it.  Packets of a connection with
the mark of the rules in force pass at once; those of any other are judged by the rules anew.  Rules match the addresses and ports
with which the connection *began* (``ct original``), so packets in both directions are judged alike, and a connection is cut in
both at the same moment.  Nothing is flushed, and the gateway keeps what it knows.

A raw rule matches packets, whatever it matches, so it only judges packets from the connection's beginner.  Until the next of
them the answers pass; if it is refused, the mark says so, and the answers are dropped too.

After a move of the gateway there are no marks and no connections: the next packet of each is judged as its first one, which
the kernel allows (``nf_conntrack_tcp_loose``).
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from pvc_vxlan.network import Rule

_BITS: Final = 0x7FFFFFFE


class Marks(msgspec.Struct, frozen=True):
    """What connections are marked with by one generation of rules."""

    accepted: int
    refused: int


def marks(rules: Sequence[Rule]) -> Marks:
    """Return the marks of rules: the same for rules that decide the same."""
    deciding = msgspec.json.encode([replace(rule, comment="", order=1) for rule in rules])
    accepted = int.from_bytes(hashlib.blake2s(deciding, digest_size=4).digest(), "big") & _BITS or 2
    return Marks(accepted, accepted + 1)


def mark(which: int) -> str:
    """Return the statement that marks a packet's connection."""
    return f"ct mark set {which:#010x}"


def passing(now: Marks) -> str:
    """Return the rule by which packets of connections pass that the rules in force accepted."""
    return f"ct mark {now.accepted:#010x} accept"


def before_raw(now: Marks) -> list[str]:
    """Return the rules that stand before the first raw rule: answers are not judged by it."""
    return [f"ct direction reply ct mark {now.refused:#010x} drop", "ct direction reply accept"]
