"""Being in another network namespace for a moment, to open a socket there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pvc_sandbox.syscalls import CLONE_NEWNET, setns

NAMED: Final = Path("/run/netns")
"""Where ``ip netns`` keeps named namespaces."""


@contextlib.contextmanager
def entered(namespace: Path) -> Iterator[None]:
    """Put this thread, and no other, into a network namespace for the time of the ``with`` block.

    A socket belongs for ever to the namespace in which it was made, so the block needs to be no longer than that.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            setns(here, CLONE_NEWNET)
    finally:
        os.close(here)
