"""Waiting for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from pvc_sandbox.errors import SandboxError

T = TypeVar("T")

_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.25


def wait_until(
    what: str, condition: Callable[[], T | None], *, deadline_s: float, detail: Callable[[], str] | None = None
) -> T:
    """Return the condition's first true result; look again at growing intervals of up to 0.25 s.

    Raises SandboxError, naming ``what`` and adding ``detail()``, when ``deadline_s`` seconds have passed.
    An exception of the condition ends the waiting.
    """
    end = time.monotonic() + deadline_s
    pause = _FIRST_PAUSE_S
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= end:
            more = detail() if detail else ""
            raise SandboxError(f"{what}: not within {deadline_s:g} s" + (f"; {more}" if more else ""))
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)
