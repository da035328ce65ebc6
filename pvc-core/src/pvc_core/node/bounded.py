"""Calls that must come back in time."""

import threading
from collections.abc import Callable

from pvc_core.plugin.errors import DeadlineExceeded

BoundedCall = Callable[[str, Callable[[], None], float], None]
"""``call(what, function, deadline_s)``; raises what the function raises, or DeadlineExceeded."""


def call_with_deadline(what: str, function: Callable[[], None], deadline_s: float) -> None:
    """Run a function in a daemon thread of its own and wait for its end.

    Raises what it raises.  After ``deadline_s`` seconds raises DeadlineExceeded and leaves the thread
    alone: it cannot be ended, but keeps nobody waiting, the end of the process included.
    """
    failure: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:  # a plugin's: carried over to the caller, SystemExit included
            failure.append(error)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(deadline_s)
    if thread.is_alive():
        raise DeadlineExceeded(f"{what} did not come back within {deadline_s:g} s")
    if failure:
        raise failure[0]
