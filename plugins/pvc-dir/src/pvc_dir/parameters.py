"""Parameters of a pool: decoded and checked without looking at any directory."""

import posixpath
from typing import Final, Literal, NamedTuple

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean
from pvc_core.model.storage import PoolSpec

Format = Literal["raw", "qcow2"]
FORMATS: Final[tuple[Format, ...]] = ("raw", "qcow2")
_KNOWN: Final = ("path", "format", "mounted")
_FORBIDDEN: Final = frozenset({"/", "/boot", "/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/usr"})  # noqa: S108


class PoolParameters(NamedTuple):
    """What a pool of this driver may be told."""

    path: str
    """Absolute path of the directory, the same on every node."""
    format: Format = "raw"
    """Format of volumes that name none."""
    mounted: bool = False
    """The directory must not be on the node's root file system."""


def pool_parameters(pool: PoolSpec) -> PoolParameters:
    """Return a pool's parameters; raise InvalidRequest that names the parameter and what it may be."""
    given = pool.parameters
    for name in given:
        if name not in _KNOWN:
            raise InvalidRequest(
                f"pool {pool.name}: driver dir has no parameter {name!r}{did_you_mean(name, _KNOWN)}; "
                f"it has {', '.join(_KNOWN)}"
            )
    format_ = given.get("format", FORMATS[0])
    if format_ not in FORMATS:
        raise InvalidRequest(f"pool {pool.name}: format {format_!r} is not one of {', '.join(FORMATS)}")
    mounted = given.get("mounted", False)
    if not isinstance(mounted, bool):
        raise InvalidRequest(f"pool {pool.name}: mounted {mounted!r} is neither true nor false")
    return PoolParameters(_path(pool), format_, mounted)


def validate_pool(pool: PoolSpec) -> None:
    """Check a pool's parameters; raises InvalidRequest."""
    pool_parameters(pool)


def _path(pool: PoolSpec) -> str:
    path = pool.parameters.get("path")
    if path is None:
        raise InvalidRequest(f"pool {pool.name}: driver dir needs the parameter 'path', a directory every node sees")
    if not isinstance(path, str) or not path.startswith("/") or not path.isprintable():
        raise InvalidRequest(f"pool {pool.name}: path {path!r} is not an absolute path, such as /srv/pvc")
    if posixpath.normpath(path) != path:
        raise InvalidRequest(f"pool {pool.name}: write path {path!r} as {posixpath.normpath(path)!r}")
    if path in _FORBIDDEN:
        raise InvalidRequest(f"pool {pool.name}: {path} belongs to the system; choose a directory of its own")
    return path
