"""Waiting for a condition in a test, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_S = 0.01


def eventually(condition: Callable[[], T], what: str, *, within_s: float = 15.0) -> T:
    """Return the condition's first true result; AssertionError naming ``what`` after ``within_s`` seconds."""
    deadline = time.monotonic() + within_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(_PAUSE_S)
    return result
