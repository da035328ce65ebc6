"""Who has a volume open: the rules, as pure functions of its state.

Invariant: at most one node holds a volume for a VM, plus the target of its live migration; never two VMs.
"""

from msgspec.structs import replace

from pvc_core.plugin import ObjectBusy
from pvc_dir.state import Holder, VolumeState


def attached(state: VolumeState, volume: str, new: Holder) -> VolumeState:
    """Return the state with a holder added.

    Raises ObjectBusy.  A holder of another node gives way only to a higher epoch of the VM's claim: then the
    claim was revoked with a proof that the node cannot run the VM, or handed over to us.  Of the same epoch it
    stays, and only the target of a live migration is let in beside it.
    """
    if state.leaving:
        raise ObjectBusy(f"volume {volume!r} cannot be attached: {state.leaving}")
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


def detached(state: VolumeState, vm: str, node: str) -> VolumeState:
    """Return the state without this node's entry for a VM; entries of others stay."""
    return replace(state, holders=tuple(h for h in state.holders if (h.vm, h.node) != (vm, node)))


def check_unused(state: VolumeState, volume: str, purpose: str) -> None:
    """Raise ObjectBusy that names the holder when there is one."""
    for holder in state.holders:
        raise ObjectBusy(
            f"volume {volume!r} is attached to VM {holder.vm} on node {holder.node}; stop the VM to {purpose}"
        )
