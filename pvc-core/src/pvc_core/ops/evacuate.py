"""Changes of VM specs that the cluster itself asks for: evacuation, return, autostart, placing what waits.

Called by the daemons (a draining node's own, or the primary), never by people.  All are idempotent: called again they
do what is left to do.
"""

from pvc_core.ops.context import Ops
from pvc_core.ops.message import View


class Placed(View, frozen=True, kw_only=True):
    """What was written, by VM id."""

    moves: dict[str, str] = {}
    """VM -> node it is now placed on."""
    stuck: dict[str, dict[str, str]] = {}
    """VM -> node -> why it does not fit there; these VMs were left alone."""


def apply_evacuation(ops: Ops, node: str) -> Placed:
    """Give every running VM of a node that drains another place; remembers home.  Plans all before it writes any."""
    raise NotImplementedError


def apply_return(ops: Ops, node: str) -> Placed:
    """Bring back the VMs that are at home on this node, as far as they fit."""
    raise NotImplementedError


def autostart_for(ops: Ops, node: str) -> list[str]:
    """Ask for a start of the stopped VMs with autostart that are placed on this node; returns their ids."""
    raise NotImplementedError


def set_waiting(ops: Ops, vms: list[str]) -> list[str]:
    """Take running VMs off the node they are placed on, to wait for one that fits; returns the ids written.

    VMs with a claim are left alone: their node may still run them.
    """
    raise NotImplementedError


def place_waiting(ops: Ops) -> Placed:
    """Give VMs that shall run and have no node, or one that is gone and freed them, a node that fits."""
    raise NotImplementedError
