"""Parameters of a pool: decoded and checked without asking Ceph."""

import re
from typing import Final, Literal

import msgspec

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean
from pvc_core.model.storage import PoolSpec

Autoscale = Literal["on", "warn", "off"]
_AUTOSCALE: Final[tuple[Autoscale, ...]] = ("on", "warn", "off")
_KNOWN: Final = ("pool", "copies", "mincopies", "tier", "pgs", "autoscale", "adopt")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TIER: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_MAX_COPIES: Final = 10
_MAX_PGS: Final = 32768


class PoolParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool of this driver is."""

    id: str
    """Of PVC's pool: marks the one in Ceph as its own."""
    name: str
    """PVC's name, for people."""
    pool: str
    """Ceph's name."""
    copies: int = 3
    mincopies: int = 2
    tier: str = ""
    """CRUSH device class (ssd, hdd, nvme, ...); empty: all devices."""
    pgs: int = 0
    """Placement groups; 0: Ceph's own choice."""
    autoscale: Autoscale = "on"
    adopt: bool = False
    """Somebody else made it in Ceph: it is used as it is, and never deleted."""


def pool_parameters(pool: PoolSpec) -> PoolParameters:
    """Return a pool's parameters; raise InvalidRequest that names the parameter and what it may be."""
    given = pool.parameters
    for name in given:
        if name not in _KNOWN:
            raise InvalidRequest(
                f"pool {pool.name}: driver {pool.driver} has no parameter {name!r}{did_you_mean(name, _KNOWN)}; "
                f"it has {', '.join(_KNOWN)}"
            )
    copies = _number(pool, "copies", 3, 1, _MAX_COPIES)
    pgs = _number(pool, "pgs", 0, 0, _MAX_PGS)
    if pgs & (pgs - 1):
        raise InvalidRequest(f"pool {pool.name}: pgs {pgs} is not a power of two")
    autoscale = given.get("autoscale", "off" if pgs else "on")
    if autoscale not in _AUTOSCALE:
        raise InvalidRequest(f"pool {pool.name}: autoscale {autoscale!r} is not one of {', '.join(_AUTOSCALE)}")
    adopt = given.get("adopt", False)
    if not isinstance(adopt, bool):
        raise InvalidRequest(f"pool {pool.name}: adopt {adopt!r} is neither true nor false")
    made_elsewhere = [name for name in ("copies", "mincopies", "tier", "pgs", "autoscale") if name in given]
    if adopt and made_elsewhere:
        raise InvalidRequest(
            f"pool {pool.name}: with adopt the pool stays as it is in Ceph; leave out {made_elsewhere[0]}"
        )
    return PoolParameters(
        id=pool.id,
        name=pool.name,
        pool=_text(pool, "pool", pool.name, _NAME, "letters, digits, dashes and underscores"),
        copies=copies,
        mincopies=_mincopies(pool, copies),
        tier=_text(pool, "tier", "", _TIER, "a CRUSH device class, such as ssd"),
        pgs=pgs,
        autoscale=autoscale,
        adopt=adopt,
    )


def validate_pool(pool: PoolSpec) -> list[str]:
    """Check a pool's parameters; return what to warn of.  Raises InvalidRequest."""
    return warnings(pool_parameters(pool))


def warnings(pool: PoolParameters) -> list[str]:
    """Return what to tell somebody who wants copies other than three, of which two must be written."""
    if pool.adopt:
        return []
    found = []
    if pool.copies == 1:
        found.append("with one copy every failed disk loses data, and every node that is off stops VMs")
    elif pool.copies == 2:
        found.append("with two copies a second failure before the first is healed loses data; three are the rule")
    if pool.copies > 1 and pool.mincopies == 1:
        found.append(
            "with mincopies 1 data is acknowledged that exists once: a failure right after it loses writes that guests "
            "were told are safe"
        )
    if pool.copies > 1 and pool.mincopies == pool.copies:
        found.append(f"with mincopies {pool.mincopies} of {pool.copies} one node that is off stops all writes")
    return found


def _number(pool: PoolSpec, name: str, default: int, least: int, most: int) -> int:
    value = pool.parameters.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidRequest(f"pool {pool.name}: {name} {value!r} is not a number from {least} to {most}")
    return value


def _mincopies(pool: PoolSpec, copies: int) -> int:
    value = _number(pool, "mincopies", copies - copies // 2, 1, _MAX_COPIES)
    if value > copies:
        raise InvalidRequest(f"pool {pool.name}: mincopies {value} is more than its {copies} copies")
    return value


def _text(pool: PoolSpec, name: str, default: str, pattern: re.Pattern[str], what: str) -> str:
    value = pool.parameters.get(name, default)
    if value == "" == default:
        return ""
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidRequest(f"pool {pool.name}: {name} {value!r} is not valid: {what}")
    return value
