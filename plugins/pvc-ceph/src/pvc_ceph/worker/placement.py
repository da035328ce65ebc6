"""Which placement group an object of a replicated pool is in.

Ceph hashes an object's name by Robert Jenkins' hash of 1996 (https://burtleburtle.net/bob/hash/evahash.html) and folds
that into the number of placement groups so that most objects stay when there are more.  It has been so since Ceph's first
release; ``ceph osd map`` says the same.
"""

from itertools import count
from typing import Final

_GOLDEN: Final = 0x9E3779B9
_WORD: Final = 0xFFFFFFFF


def group(name: str, groups: int) -> int:
    """Return the number of an object's placement group in a pool that has ``groups``."""
    mask = (1 << (groups - 1).bit_length()) - 1
    place = jenkins(name.encode())
    return place & mask if place & mask < groups else place & (mask >> 1)


def one_in_each(groups: int) -> list[str]:
    """Return names of objects such that every placement group has one."""
    names: dict[int, str] = {}
    for number in count():
        if len(names) == groups:
            return [names[place] for place in sorted(names)]
        name = f"pvc.look.{number}"
        names.setdefault(group(name, groups), name)
    raise AssertionError("numbers do not end")


def jenkins(data: bytes) -> int:
    """Return the hash of 32 bits."""
    a = b = _GOLDEN
    c = 0
    whole = len(data) - len(data) % 12
    for start in range(0, whole, 12):
        a, b, c = _mix(*(x + _number(data, start + at) for x, at in ((a, 0), (b, 4), (c, 8))))
    rest = data[whole:].ljust(12, b"\0")
    # The lowest byte of c is the length's.
    c += len(data) + (_number(rest, 8) << 8)
    return _mix(a + _number(rest, 0), b + _number(rest, 4), c)[2]


def _number(data: bytes, start: int) -> int:
    return int.from_bytes(data[start : start + 4], "little")


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for right, left, again in ((13, 8, 13), (12, 16, 5), (3, 10, 15)):
        a = ((a - b - c) ^ ((c & _WORD) >> right)) & _WORD
        b = ((b - c - a) ^ (a << left)) & _WORD
        c = ((c - a - b) ^ (b >> again)) & _WORD
    return a, b, c
