"""./dev bench storage: volumes on Ceph, in a sandbox of three nodes.

Prints one JSON object per line.  ``value`` is the median of ``runs`` measurements, ``p95`` their 95th percentile.

1. What changes of a volume take: of librbd itself, of the driver, and of whole operations.
2. 4 KiB random writes: of `rbd bench`, of QEMU without a guest, and of a guest.
3. Many volumes: making them, `pvc storage volume list`, and the driver's own list.
4. The driver's worker processes on the nodes.

What is compared is measured in turn.  Each part ends with the machine's load average.
"""

import argparse
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from _cluster import note
from _storage_guest import writes
from _storage_latency import latencies
from _storage_list import lists, make_volumes
from _storage_site import site, tell
from _storage_workers import Workers


@contextmanager
def part(name: str) -> Iterator[None]:
    """Say how long a part of the bench took, and how busy the machine was."""
    note(name)
    begun, before = time.monotonic(), os.getloadavg()[0]
    yield
    tell(f"{name}_took", time.monotonic() - begun, unit="s", load=[round(before, 1), round(os.getloadavg()[0], 1)])


def positive(text: str) -> int:
    """Return a number that a median can be made of."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1, so nothing would be measured")
    return number


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=positive, default=20, metavar="RUNS", help="runs of each change of a volume")
    parser.add_argument("--rounds", type=positive, default=5, help="runs of each kind of random writes")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each of these runs")
    parser.add_argument("--volumes", type=positive, default=2000)
    parser.add_argument("--lists", type=positive, default=7, metavar="RUNS", help="runs of each kind of list")
    options = parser.parse_args()
    if not 0 < options.seconds < math.inf:
        parser.error(f"argument --seconds: {options.seconds} is no length of time")
    with site() as made:
        with part("changes"):
            latencies(made, options.changes)
        workers = Workers(made)
        with part("writes"):
            writes(made, options.rounds, options.seconds)
        workers.tell_cpu("writes")
        with part("volumes"):
            workers = Workers(made)
            make_volumes(made, options.volumes)
            workers.tell_cpu("volumes_made")
            lists(made, options.lists)
        workers.tell()


if __name__ == "__main__":
    main()
