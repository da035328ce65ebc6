"""FRR on a node, called as Debian's systemd unit is: ``frr``.  Only a node that has it knows it."""

import sys
from pathlib import Path
from typing import Final

from pvc_sandbox.control import Service
from pvc_sandbox.frr_daemon import LOCK, PROGRAM
from pvc_sandbox.units.unit import Unit

NAME: Final = "frr"
NAMES: Final = (NAME,)
_STOP_S: Final = 20.0
"""More than the service takes for it at the longest."""


def configuration(state: Path) -> Path:
    """Return the directory that the node with this state directory sees as ``/etc/frr``."""
    return state / "etc/frr"


def service(state: Path) -> Service:
    """Return FRR's service on the node with this state directory."""
    return Service(
        name=NAME,
        argv=(sys.executable, "-m", "pvc_sandbox.frr_daemon"),
        log=str(state / "log/frrinit.log"),
        stop_timeout_s=_STOP_S,
        notifies=True,
    )


def unit(state: Path, name: str) -> Unit | None:
    """Return the unit when this is its name (without ``.service``) and the node with this state directory has FRR."""
    if name != NAME or not configuration(state).is_dir():
        return None
    # Without --close the daemons that it starts would hold the lock for ever.
    return Unit(service=service(state), reload=("flock", "--close", str(LOCK), PROGRAM, "reload"))
