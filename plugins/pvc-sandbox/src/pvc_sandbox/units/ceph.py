"""Ceph's daemons on a node, called as Debian's systemd units are: ``ceph-mon@hv1``, ``ceph-mgr@hv1``, ``ceph-osd@0``."""

import re
from pathlib import Path
from typing import Final

from pvc_sandbox.control import Service
from pvc_sandbox.units.unit import Unit

NAMES: Final = ("ceph-mon@ID", "ceph-mgr@ID", "ceph-osd@NUMBER")
_UNITS: Final = (re.compile(r"(ceph-mon|ceph-mgr)@([A-Za-z0-9_.-]+)"), re.compile(r"(ceph-osd)@(\d+)"))
_NEW_IDENTITY: Final = "CEPH_USE_RANDOM_NONCE"
"""Otherwise a daemon's PID tells it from the one before, and a node that is switched on again gives the same ones: monitors
take an OSD for the one that is up already, which then waits until its heartbeats are missed."""


def unit(state: Path, name: str) -> Unit | None:
    """Return the unit of this name (without ``.service``) on the node with this state directory; None: not of this family."""
    found = next((match for pattern in _UNITS if (match := pattern.fullmatch(name))), None)
    if found is None:
        return None
    program, id_ = found.groups()
    return Unit(
        service=Service(
            name=name, argv=(program, "-f", "-i", id_), log=str(state / f"log/{name}.log"), env={_NEW_IDENTITY: "1"}
        )
    )
