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
the kernel allows (``nf_conntrack_tcp_loose``).  When that comes from a server outside, such as the data of a download,
it would be dropped as the beginning of a connection into the network, and a client that only listens never sends anything that
puts it right.  So for a while (``ADOPTION_S``) a packet from the middle of a TCP connection is taken for an answer, and judged by
the rules about the way out.  Such a connection is *adopted*: a mark of its own says that it began the other way than the
kernel thinks.  It cannot be used to begin one: a SYN from outside does not pass in it.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from pvc_vxlan.network import Rule

Way = Literal["original", "reply"]
"""In which direction of the kernel's a connection began: ``reply`` if it was adopted."""

ADOPTION_S: Final = 120
"""Seconds after a gateway came in which connections are adopted: Linux sends again after so long at most (``TCP_RTO_MAX``)."""
_BITS: Final = 0x7FFFFFFE
_ADOPTED: Final = 0x80000000


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


def adopted(now: Marks) -> Marks:
    """Return the same marks for connections that are adopted."""
    return Marks(now.accepted | _ADOPTED, now.refused | _ADOPTED)


def passing(now: Marks) -> str:
    """Return the rule by which packets of connections pass that the rules in force accepted."""
    return f"ct mark {now.accepted:#010x} accept"


def adopting(counter: str, until: int) -> str:
    """Return the rule by which packets are adopted, until a time in seconds since the epoch."""
    # Without FIN and RST too: an end need not be adopted.
    middle = "ct state new tcp flags & (fin | syn | rst | ack) == ack"
    return f'{middle} meta time < {until} counter name "{counter}" {mark(_ADOPTED)} goto adopted'


def is_adopted() -> str:
    """Return what matches packets of adopted connections."""
    return f"ct mark & {_ADOPTED:#x} == {_ADOPTED:#x}"


def before_raw(now: Marks, way: Way) -> list[str]:
    """Return the rules that stand before the first raw rule: answers are not judged by it."""
    answers = "reply" if way == "original" else "original"
    return [f"ct direction {answers} ct mark {now.refused:#010x} drop", f"ct direction {answers} accept"]
