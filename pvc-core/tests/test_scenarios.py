"""Every scenario of the repository comes true, whatever the order in which things happen."""

from pathlib import Path

import pytest

from pvc_core.testkit.scenario.load import files, load
from pvc_core.testkit.scenario.play import play

ROOT = Path(__file__).parents[2]
SEEDS = 5
FILES = files([str(ROOT / "scenarios")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(Path(path).relative_to(ROOT / "scenarios")))
def test_a_scenario_comes_true(path: str):
    script = load(path)
    for seed in range(SEEDS):
        run = play(script, seed)
        wrong = [f"{v.line}: {v.what}: {v.found}" for v in run.verdicts if not v.ok]
        timeline = "\n".join(f"{entry.at:9.2f}  {entry.what}" for entry in run.timeline)
        assert run.ok, "\n".join([f"seed {seed}: {run.broken}", *wrong, "", timeline])


def test_the_known_kinds_of_failure_are_there():
    assert len(FILES) >= 100
    kinds = {Path(path).parent.name for path in FILES}
    assert kinds >= {
        "power",
        "devices",
        "partition",
        "daemon",
        "store",
        "maintenance",
        "primary",
        "vm",
        "migration",
        "return",
        "size",
    }
