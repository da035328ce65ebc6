"""./dev bench migrate: evacuation of a node with 10 guests by live migration.

Prints one JSON object per line: the whole time of `pvc node flush`, and each guest's downtime as libvirt
reports it.
"""

import argparse
import statistics
import time

from _cluster import cluster, start_guests, tell


def main() -> None:
    """Measure an evacuation, and the way back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guests", type=int, default=10)
    options = parser.parse_args()
    with cluster("migrate", 3) as sandbox:
        node = sandbox.nodes()[0]
        names = start_guests(sandbox, options.guests, node)
        for what, words in (("flush", ("node", "flush", node)), ("ready", ("node", "ready", node))):
            begun = time.monotonic()
            sandbox.pvc(*words, deadline_s=300.0)
            tell("migrate", f"{what}_s", time.monotonic() - begun, unit="s", guests=options.guests)
            moves = [sandbox.pvc.json("vm", "info", name) for name in names]
            done = [vm["last_migration"] for vm in moves]
            if not all(move["ok"] and move["method"] == "live" for move in done):
                raise SystemExit(f"not every guest was moved live: {done}")
            downtimes = [move["downtime_ms"] for move in done]
            tell("migrate", f"{what}_downtime_ms", statistics.median(downtimes), unit="ms", each=downtimes)
            tell("migrate", f"{what}_guest_s", statistics.median(move["duration_s"] for move in done), unit="s")


if __name__ == "__main__":
    main()
