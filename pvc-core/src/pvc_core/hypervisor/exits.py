"""Why domains ended: collected from events, asked for by another thread that may be faster than the event."""

import threading

from pvc_core.hypervisor.api import ExitReason


class Exits:
    """The last end of each domain, as far as it was seen.  May be used from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._runs: dict[str, int] = {}
        self._alive: set[str] = set()
        self._executed: set[str] = set()
        self._reasons: dict[str, ExitReason] = {}

    def seen(self, vm: str, run: int) -> None:
        """A domain is here, in this run of it; when the run is new, an earlier one's end says nothing any more."""
        with self._changed:
            if run > 0 and run != self._runs.get(vm):
                self._runs[vm] = run
                self._alive.add(vm)
                self._executed.discard(vm)
                self._reasons.pop(vm, None)

    def executed(self, vm: str) -> None:
        """A domain's processors run, or ran."""
        with self._changed:
            self._executed.add(vm)

    def ended(self, vm: str, reason: ExitReason) -> None:
        """A domain ended, for a reason in libvirt's words.

        libvirt also calls an emulator that died "failed", and an incoming half that it gave up "destroyed".
        """
        with self._changed:
            if vm in self._executed:
                reason = ExitReason.CRASHED if reason is ExitReason.FAILED else reason
            elif reason is ExitReason.DESTROYED:
                reason = ExitReason.FAILED
            self._alive.discard(vm)
            self._executed.discard(vm)
            self._reasons[vm] = reason
            self._changed.notify_all()

    def forget_all(self) -> None:
        """From here on something may have been missed, so nothing that was seen is known to be the last."""
        with self._changed:
            self._runs.clear()
            self._alive.clear()
            self._executed.clear()
            self._reasons.clear()
            self._changed.notify_all()

    def reason(self, vm: str, patience_s: float) -> ExitReason:
        """Return why a domain that is gone ended; when its event is still on the way, wait for that."""
        with self._changed:
            if not self._changed.wait_for(lambda: vm not in self._alive, patience_s):
                # No event comes of an incoming half that is destroyed while its emulator starts (libvirt 9.0).
                self._reasons[vm] = ExitReason.UNKNOWN if vm in self._executed else ExitReason.FAILED
                self._alive.discard(vm)
            return self._reasons.get(vm, ExitReason.UNKNOWN)
