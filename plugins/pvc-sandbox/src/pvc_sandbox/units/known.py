"""All units that a node's ``systemctl`` knows."""

from pathlib import Path
from typing import Final

from pvc_sandbox.errors import SandboxError
from pvc_sandbox.units import ceph, frr
from pvc_sandbox.units.unit import Unit

_FAMILIES: Final = (ceph.unit, frr.unit)
_NAMES: Final = (*ceph.NAMES, *frr.NAMES)


def unit(state: Path, name: str) -> Unit:
    """Return the unit of this name on the node with this state directory; ``.service`` may be left out.

    Raises SandboxError for one that is not known there.
    """
    plain = name.removesuffix(".service")
    for family in _FAMILIES:
        found = family(state, plain)
        if found is not None:
            return found
    raise SandboxError(
        f"unit {name!r} is not known on a node of a sandbox; known are, where they are part of it: {', '.join(_NAMES)}"
    )
