"""Who has a volume open: the rules of ``disk_attach`` for drivers that keep the holders themselves, as pure functions.

Invariant: at most one node holds a volume for a VM, plus the target of its live migration; never two VMs.  A driver
keeps a ``Holding`` (or a struct derived from it) where every node sees it, and replaces it by compare-and-set.
"""

from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from pvc_core.plugin.errors import ObjectBusy


class Holder(Struct, frozen=True, kw_only=True):
    """A node that has the volume open for a VM."""

    vm: str
    node: str
    epoch: int
    """Of the VM's claim."""
    incoming: bool = False
    """It awaits the VM in a live migration."""


class Holding(Struct, frozen=True, kw_only=True):
    """Who holds a volume, and who held it last."""

    holders: tuple[Holder, ...] = ()
    last_vm: str = ""
    last_epoch: int = 0
    """Highest claim epoch seen, of ``last_vm``: smaller ones are refused also when nobody holds the volume."""


S = TypeVar("S", bound=Holding)


def attached(state: S, volume: str, new: Holder) -> S:
    """Return the state with a holder added.

    Raises ObjectBusy.  A holder of another node gives way only to a higher epoch of the VM's claim: then the
    claim was revoked with a proof that the node cannot run the VM, or handed over to us.  Of the same epoch it
    stays, and only the target of a live migration is let in beside it.
    """
    if new.vm == state.last_vm and new.epoch < state.last_epoch:
        raise ObjectBusy(
            f"volume {volume!r}: the claim of VM {new.vm} with epoch {new.epoch} is over; "
            f"epoch {state.last_epoch} has been here since",
            retryable=False,
        )
    others = tuple(h for h in state.holders if h.node != new.node)
    mine = len(others) < len(state.holders)
    for holder in state.holders:
        if holder.vm != new.vm:
            raise ObjectBusy(f"volume {volume!r} is attached to VM {holder.vm} on node {holder.node}")
    if not new.incoming:
        for holder in others:
            if holder.epoch >= new.epoch and not mine:
                raise ObjectBusy(
                    f"volume {volume!r} is attached on node {holder.node} (claim epoch {holder.epoch}, "
                    f"ours is {new.epoch}); it is let go there first"
                )
        others = tuple(h for h in others if h.epoch >= new.epoch)
    return replace(state, holders=(*others, new), last_vm=new.vm, last_epoch=new.epoch)


def detached(state: S, vm: str, node: str) -> S:
    """Return the state without a node's entry for a VM; entries of others stay."""
    return replace(state, holders=tuple(h for h in state.holders if (h.vm, h.node) != (vm, node)))


def flushed(state: S, volume: str, vm: str, epoch: int) -> S:
    """Return the state without holders for a VM of which nothing runs any more since its claim had this epoch.

    Raises ObjectBusy when the volume is another VM's, or was attached with a later epoch.
    """
    for holder in state.holders:
        if holder.vm != vm:
            raise ObjectBusy(f"volume {volume!r} is attached to VM {holder.vm} on node {holder.node}")
        if holder.epoch > epoch:
            raise ObjectBusy(
                f"volume {volume!r} was attached on node {holder.node} meanwhile (claim epoch {holder.epoch}, not {epoch})"
            )
    return replace(state, holders=())


def check_unused(state: Holding, volume: str, purpose: str) -> None:
    """Raise ObjectBusy that names the holder when there is one."""
    for holder in state.holders:
        raise ObjectBusy(
            f"volume {volume!r} is attached to VM {holder.vm} on node {holder.node}; stop the VM to {purpose}"
        )
