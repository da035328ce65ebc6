"""The cache of guest images: shared by all sandboxes, filled by one process at a time, never half."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pvc_sandbox.files import Lock

CACHE: Final = Path("/var/cache/pvc-sandbox")
_LONGEST_BUILD_S: Final = 600.0


def cached(name: str, build: Callable[[Path], None], cache: Path = CACHE) -> Path:
    """Return the directory ``name`` of the cache; ``build`` fills it first when it is not there.

    A build that is killed leaves at most a directory that the next one removes.
    """
    place = cache / name
    if place.is_dir():
        return place
    with Lock(cache / "lock", _LONGEST_BUILD_S):
        if place.is_dir():
            return place
        for leftover in cache.glob(".building-*"):
            shutil.rmtree(leftover)
        work = Path(tempfile.mkdtemp(prefix=".building-", dir=cache))
        try:
            build(work)
            work.chmod(0o755)
            work.rename(place)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return place
