"""docs/cli.md is what the command tree says."""

from pathlib import Path

from pvc_core.cli.reference import render
from pvc_core.cli.table import CORE, Entry

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_overview_is_current():
    assert PAGE.read_text() == render(), "run python -m pvc_core.cli.reference > docs/cli.md"


def test_every_command_is_in_the_overview():
    def paths(entries: tuple[Entry, ...], before: str):
        for entry in entries:
            yield f"{before} {entry.name}"
            yield from paths(entry.commands, f"{before} {entry.name}")

    page = render()
    for path in paths(CORE, "pvc"):
        assert f"# `{path}" in page
