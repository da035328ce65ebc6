"""A guest that stands still for a moment, so that all its disks are of one instant.

1. A note is left with the domain, which says that it was we, and whether its file systems may be frozen.
2. The guest agent, where there is one, freezes the file systems.
3. The guest's processors are stopped; QEMU writes and flushes what the guest had begun to write.
4. Whatever had to be done with the disks.
5. The processors run again, the file systems are thawed, the note is taken away.

Whoever does this keeps all others of this daemon from the VM meanwhile.  So a domain with a note that is found when nobody
does was left by a daemon that died, and is let go; one that stands still without a note is somebody else's, or a copy
that a migration left, and is not.
"""

import logging
from typing import Final

from pvc_core.hypervisor.api import (
    AgentUnavailable,
    Domain,
    DomainState,
    Hypervisor,
    HypervisorError,
    HypervisorUnavailable,
)
from pvc_core.model.vm import VmClaim

log = logging.getLogger(__name__)

STILL_S: Final = 10.0
"""A guest stands still no longer than this: about what network connections, and Windows' own freeze, bear."""

FREEZE_S: Final = 20.0
"""Time for the guest agent to write out and freeze all file systems; the guest runs meanwhile."""

_THAW_S: Final = 5.0
_PAUSED: Final = "snapshot"
_FROZEN: Final = "snapshot, frozen"


class Standstill:
    """One standstill of a guest that runs here.  ``end`` must be called whatever happens; it raises nothing."""

    def __init__(self, hypervisor: Hypervisor, vm: str) -> None:
        self._hypervisor = hypervisor
        self._vm = vm
        self._noted = ""

    def freeze(self) -> str:
        """Freeze the file systems; return why they are not frozen, or an empty string.  Raises HypervisorUnavailable."""
        self._note(_FROZEN)
        try:
            count = self._hypervisor.freeze(self._vm, FREEZE_S)
        except HypervisorUnavailable:
            raise
        except AgentUnavailable as error:
            self._note(_PAUSED)
            return str(error)
        except HypervisorError as error:
            # Some may be frozen: they are thawed before anything else.
            if _thaw(self._hypervisor, self._vm):
                self._note(_PAUSED)
            return str(error)
        log.info("guest-frozen vm=%s file_systems=%d", self._vm, count)
        return "" if count else "the guest agent found no file systems to freeze"

    def pause(self) -> None:
        """Stop the guest.  Raises HypervisorError."""
        if not self._noted:
            self._note(_PAUSED)
        self._hypervisor.pause(self._vm)

    def held(self) -> bool:
        """Say whether it stands still now; False when it ended, or somebody let it go."""
        domain = self._hypervisor.domain(self._vm)
        return domain is not None and domain.state is DomainState.PAUSED

    def end(self) -> None:
        """Let the guest go on.  What fails is tried again by the VM's reconciler: the note is still there."""
        if self._noted:
            _let_go(self._hypervisor, self._vm, self._noted)
            self._noted = ""

    def _note(self, note: str) -> None:
        # Before it is there: a lost answer must not leave a guest that nobody lets go.
        self._noted = note
        self._hypervisor.set_note(self._vm, note)


def let_go_left(hypervisor: Hypervisor, me: str, claim: VmClaim | None, domain: Domain) -> bool:
    """Let a guest go on that an earlier daemon of this node left standing still; say whether that was tried.

    Only the holder of the claim does, and not in a migration, which may have the guest execute elsewhere.  (None begins
    while a guest stands still; but one that could not be thawed yet may be on its way.)
    """
    if domain.note not in (_PAUSED, _FROZEN) or claim is None or claim.node != me or claim.migration is not None:
        return False
    log.warning("guest-left-standing vm=%s note=%r state=%s", domain.id, domain.note, domain.state.value)
    _let_go(hypervisor, domain.id, domain.note)
    return True


def _let_go(hypervisor: Hypervisor, vm: str, note: str) -> None:
    try:
        if hypervisor.domain(vm) is None:
            return
        hypervisor.resume(vm)
        if note != _FROZEN or _thaw(hypervisor, vm):
            hypervisor.set_note(vm, "")
    except HypervisorError as error:
        log.warning("guest-not-let-go vm=%s error=%s action=retry", vm, error)


def _thaw(hypervisor: Hypervisor, vm: str) -> bool:
    try:
        hypervisor.thaw(vm, _THAW_S)
    except HypervisorError as error:
        log.warning("guest-not-thawed vm=%s error=%s action=retry", vm, error)
        return False
    return True
