"""What a run of a scenario came to."""

from pvc_core.ops.message import View


class TimelineEntry(View, frozen=True, kw_only=True):
    """Something that happened in a run."""

    at: float
    """Virtual seconds since the beginning."""
    what: str
    """Who did what."""


class Verdict(View, frozen=True, kw_only=True):
    """What came of something that was expected."""

    line: int
    """In the file."""
    what: str
    """What was expected."""
    ok: bool
    found: str = ""
    """When it was so, or what was found instead."""


class ScenarioRun(View, frozen=True, kw_only=True):
    """One run of a scenario."""

    seed: int
    ok: bool
    """Everything came true, and no invariant was broken."""
    broken: str = ""
    """The invariant that was broken, or why the run could not be made."""
    verdicts: tuple[Verdict, ...] = ()
    """In the order of the file."""
    timeline: tuple[TimelineEntry, ...] = ()
    virtual_s: float = 0.0
    """Simulated time, without the beginning of the cluster."""


class ScenarioResult(View, frozen=True, kw_only=True):
    """A scenario, and its runs."""

    file: str
    description: str
    ok: bool
    """All runs are."""
    runs: tuple[ScenarioRun, ...]
