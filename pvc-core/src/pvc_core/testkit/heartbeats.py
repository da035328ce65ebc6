"""What heartbeats on a disk prove: who executed a guest, in which order, and that nobody else did meanwhile.

The guest is that of ``heartbeat_guest``.  Each copy of it writes behind everything that it finds, several times a second,
and counts.  So as long as at most one executes, the records of a boot lie together and are counted without a gap; two at
once would mix theirs, or overwrite one of the other's and leave a gap in its count.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from pvc_core.testkit.heartbeat_guest import SECTOR

_AT_ONCE: Final = 64
_WORDS: Final = 6


class Beat(NamedTuple):
    """One record."""

    number: int
    """Counts from 1 in each boot."""
    boot: str
    host: str


class Life(NamedTuple):
    """What a guest did between one boot and the next."""

    boot: str
    hosts: tuple[str, ...]
    """Where, in this order: several when it was migrated live."""
    beats: int


class RanTwice(AssertionError):
    """Two copies of the guest wrote at the same time."""


def read_beats(disk: Path, *, after: int = 0) -> list[Beat]:
    """Return the records on a raw disk but for the first ``after``; the guest may be writing meanwhile."""
    return list(_read(disk, after))


def _read(disk: Path, after: int) -> Iterator[Beat]:
    with disk.open("rb") as file:
        file.seek((1 + after) * SECTOR)
        while chunk := file.read(_AT_ONCE * SECTOR):
            for at in range(0, len(chunk), SECTOR):
                words = chunk[at : at + SECTOR].partition(b"\0")[0].decode("ascii", "replace").split()
                if not words:
                    return
                if len(words) != _WORDS or words[0] != "beat":
                    raise ValueError(f"{disk} has something else than a heartbeat: {words}")
                yield Beat(int(words[1]), words[3], words[5])


def lives(beats: Iterable[Beat]) -> list[Life]:
    """Return what the guest did, boot by boot.  Raises RanTwice when that was not one after the other."""
    boots: dict[str, list[Beat]] = {}
    last = ""
    for beat in beats:
        known = boots.get(beat.boot)
        if known is None:
            if beat.number != 1:
                raise RanTwice(f"the first record of boot {beat.boot} on {beat.host} is number {beat.number}")
            boots[beat.boot] = [beat]
        elif last != beat.boot:
            raise RanTwice(f"boot {beat.boot} executed on {beat.host} while boot {last} did on {boots[last][-1].host}")
        elif beat.number != known[-1].number + 1:
            raise RanTwice(
                f"boot {beat.boot} wrote {beat.number} on {beat.host} after {known[-1].number} on {known[-1].host}"
            )
        else:
            known.append(beat)
        last = beat.boot
    return [Life(boot, _hosts(written), len(written)) for boot, written in boots.items()]


def _hosts(written: list[Beat]) -> tuple[str, ...]:
    return (written[0].host, *(new.host for old, new in pairwise(written) if new.host != old.host))
