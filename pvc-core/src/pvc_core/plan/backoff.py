"""How long to pause after failures in a row."""

from typing import Final

_DOUBLINGS: Final = 60
"""A float ends at 2 ** 1024, and what fails once a second comes there within minutes; any bound is reached long before."""


def backoff(failures: int, first_s: float, longest_s: float) -> float:
    """Return the pause in seconds: ``first_s`` after the first failure, doubled with each further one, up to ``longest_s``."""
    return min(first_s * 2.0 ** min(max(failures - 1, 0), _DOUBLINGS), longest_s)


def least(*pauses: float | None) -> float | None:
    """Return the shortest of some pauses, of which any may be missing."""
    return min((pause for pause in pauses if pause is not None), default=None)
