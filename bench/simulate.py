"""Simulated clusters under seeded faults: many runs, as JSON lines; see docs/development.md, "The simulator".

    ./dev bench simulate --seeds 20000 --jobs 2 --first 0     many seeds
    ./dev bench simulate --seed 4711 --trace                  one again, with all that its daemons log

Ends with status 1 when a run broke an invariant: it names the seed and the file with its trace.
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pvc_core.testkit.simulator.run import Failed, Run, run

BATCH = 20
ROUND = 100 * BATCH
"""Seeds for one set of processes."""
TRACES = Path("build/simulate")


class Batch(NamedTuple):
    """What came of some seeds."""

    runs: list[Run]
    failures: list[tuple[int, str]]
    cpu_s: float


def batch(seeds: range) -> Batch:
    """Run some seeds."""
    runs: list[Run] = []
    failures: list[tuple[int, str]] = []
    began = time.process_time()
    for seed in seeds:
        try:
            runs.append(run(seed)._replace(trace=()))
        except Failed as failure:
            failures.append((seed, str(failure)))
    return Batch(runs, failures, time.process_time() - began)


def tell(**fields: Any) -> None:
    """Print one JSON line."""
    print(json.dumps({"bench": "simulate", **fields}), flush=True)


class Totals:
    """Sums over all runs."""

    def __init__(self) -> None:
        self.seeds = 0
        self.violations: list[int] = []
        self.cpu_s = 0.0
        self.virtual_s = 0.0
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.proofs: Counter[str] = Counter()
        self.down_s: list[float] = []
        self.of_bound: list[float] = []
        self.slowest: list[float] = []

    def add(self, done: Batch) -> None:
        """Add a batch."""
        self.seeds += len(done.runs) + len(done.failures)
        self.cpu_s += done.cpu_s
        for result in done.runs:
            self.virtual_s += result.virtual_s
            self.faults.update(result.faults)
            self.proofs.update(result.proofs)
            for field in ("steps", "requests", "refused", "vms", "fence_calls", "revoked", "late_kills"):
                self.counts[field] += getattr(result, field)
            self.down_s += [figure.down_s for figure in result.figures]
            self.of_bound += [figure.down_s / figure.bound_s for figure in result.figures]
        for seed, trace in done.failures:
            self.violations.append(seed)
            TRACES.mkdir(parents=True, exist_ok=True)
            path = TRACES / f"seed-{seed}.txt"
            path.write_text(trace + "\n", encoding="utf-8")
            tell(name="violation", seed=seed, what=trace.splitlines()[0], trace=str(path))

    def tell(self, name: str, seconds: float) -> None:
        """Print them."""
        more: dict[str, Any] = {}
        if self.down_s:
            more = {
                "recoveries": len(self.down_s),
                "recovery_median_s": round(statistics.median(self.down_s), 2),
                "recovery_max_s": round(max(self.down_s), 2),
                "recovery_max_of_bound": round(max(self.of_bound), 3),
            }
        tell(
            name=name,
            seeds=self.seeds,
            violations=len(self.violations),
            failed=self.violations[:50],
            seconds=round(seconds, 1),
            cpu_s_per_seed=round(self.cpu_s / max(self.seeds, 1), 3),
            cluster_hours=round(self.virtual_s / 3600, 1),
            **self.counts,
            proofs=dict(sorted(self.proofs.items())),
            faults=dict(sorted(self.faults.items())),
            **more,
        )


def batches(first: int, count: int) -> Iterator[range]:
    """Yield the seeds in batches."""
    for start in range(first, first + count, BATCH):
        yield range(start, min(start + BATCH, first + count))


def many(first: int, count: int, jobs: int, every_s: float) -> int:
    """Run many seeds; returns the number of those that failed."""
    totals, began = Totals(), time.monotonic()
    told = began
    for start in range(first, first + count, ROUND):
        # New processes now and then, as they grow.  Not by max_tasks_per_child: with it Python 3.11 stands still for ever.
        with concurrent.futures.ProcessPoolExecutor(max_workers=jobs) as pool:
            for done in pool.map(batch, batches(start, min(ROUND, first + count - start))):
                totals.add(done)
                if time.monotonic() - told >= every_s:
                    told = time.monotonic()
                    totals.tell("progress", told - began)
    totals.tell("total", time.monotonic() - began)
    return len(totals.violations)


def one(seed: int, *, trace: bool) -> int:
    """Run one seed; returns whether it failed."""
    try:
        result = run(seed, verbose=trace)
    except Failed as failure:
        print(failure, file=sys.stderr)
        return 1
    if trace:
        print("\n".join(result.trace), file=sys.stderr)
    tell(name="seed", **result._replace(trace=(), figures=())._asdict())
    return 0


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--progress", type=float, default=60.0, metavar="SECONDS", help="pause between two lines")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--trace", action="store_true", help="with --seed: print what happened, with the daemons' logs")
    options = parser.parse_args()
    if options.seed is not None:
        raise SystemExit(one(options.seed, trace=options.trace))
    if many(options.first, options.seeds, options.jobs, options.progress):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
