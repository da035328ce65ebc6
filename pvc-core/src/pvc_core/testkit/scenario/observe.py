"""What happens in a run, as it happens: guests, fencings, migrations; written into the timeline, and told to triggers."""

from collections.abc import Callable

from pvc_core.model.fence import FenceRecord, FenceStage
from pvc_core.model.vm import VmState
from pvc_core.store import keys
from pvc_core.testkit.scenario.result import TimelineEntry
from pvc_core.testkit.scenario.site import Site

_WORTH_TELLING = (VmState.WAITING, VmState.BACKOFF, VmState.FAILED, VmState.STOPPED)


_ROUTINE = "fence-health"
"""Part of lines on what goes on all the time."""


class Observer:
    """Watches a site from the moment at which the scenario begins."""

    def __init__(self, site: Site, triggered: Callable[[str, str], None]) -> None:
        """``triggered`` is told of each stage of a node's fencing and phase of a VM's migration when it is written."""
        self._site = site
        self._triggered = triggered
        self.hosts = {vm: site.hosts(vm) for vm in site.ids}
        """VM -> where its guest executes."""
        self.starts: dict[str, list[float]] = {vm: [] for vm in site.ids}
        """VM -> when its guest was started."""
        self.stages: dict[str, list[tuple[float, FenceStage]]] = {node: [] for node in site.script.nodes}
        """Node -> the stages of its fencings, and when they were entered."""
        self._records: dict[str, FenceRecord] = {}
        self._phases: dict[str, str] = {}
        self._states: dict[str, tuple[VmState, str]] = {}
        self._primary = site.primary()
        site.watch(self._changed)

    def look(self) -> bool:
        """Take note of guests that came or went; return whether some did."""
        touched = self._site.take_touched()
        for vm in touched:
            before, now = self.hosts[vm], self._site.hosts(vm)
            if now == before:
                continue
            self.hosts[vm] = now
            new, gone = [n for n in now if n not in before], [n for n in before if n not in now]
            if new and not gone:
                self.starts[vm].append(self._site.now)
                self._note(f"{vm} is started on {_words(new)}" + (", and still executes elsewhere" if before else ""))
            elif gone and not new:
                self._note(f"{vm} ends on {_words(gone)}" + (f", and executes on {_words(now)}" if now else ""))
            else:
                self._note(f"{vm} executes on {_words(now)}, no longer on {_words(gone)}")
        return bool(touched)

    def timeline(self) -> tuple[TimelineEntry, ...]:
        """Return everything that happened since the beginning."""
        found = []
        for line in self._site.cluster.trace.lines:
            at = float(line[:9]) - self._site.begun
            if at >= 0 and _ROUTINE not in line:
                found.append(TimelineEntry(at=round(at, 3), what=self._site.plain(line[9:].strip())))
        return tuple(found)

    def _note(self, what: str) -> None:
        self._site.cluster.note(what)

    # --- documents ----------------------------------------------------------------------------------------

    def _changed(self, by: str, paths: list[str]) -> None:
        for path in paths:
            area, _, rest = path.removeprefix(keys.ROOT + "/").partition("/")
            if area == "fence":
                self._record_changed(by, rest)
            elif area == "claim":
                self._claim_changed(self._site.name(rest))
            elif area == "primary":
                self._primary_changed()
            elif area == "status" and rest.startswith("vm/"):
                self._status_changed(self._site.name(rest.removeprefix("vm/")))

    def _record_changed(self, by: str, node: str) -> None:
        new, old = self._site.record(node), self._records.get(node)
        if new is None:
            return
        self._records[node] = new
        same = old is not None and old.lease == new.lease
        if old is None or not same or old.stage is not new.stage:
            self.stages[node].append((self._site.now, new.stage))
            self._triggered(node, new.stage)
        taken = new.vms[len(old.vms) if old is not None and same else 0 :]
        if taken:
            what = _words([vm.name or self._site.name(vm.vm) for vm in taken])
            self._note(f"{by}: takes {what} from {node}, on {taken[-1].proof}")
        if old is not None and old.blocked and not new.blocked:
            self._note(f"{by}: storage is open to {node} again")
        if new.waits_for and (old is None or new.waits_for != old.waits_for):
            self._note(f"{by}: no proof of the death of {node}: {new.waits_for}")

    def _claim_changed(self, vm: str) -> None:
        claim = self._site.claim(vm) if vm else None
        migration = claim.migration if claim is not None else None
        phase = migration.phase.value if migration is not None else ""
        if phase == self._phases.get(vm, ""):
            return
        self._phases[vm] = phase
        if claim is not None and migration is not None:
            said = f": {migration.message}" if migration.message else ""
            self._note(f"{vm} moves from {claim.node} to {migration.target}: {phase}{said}")
            self._triggered(vm, phase)

    def _primary_changed(self) -> None:
        primary = self._site.primary()
        if primary is not None and primary != self._primary:
            self._primary = primary
            self._note(f"{primary} is primary")

    def _status_changed(self, vm: str) -> None:
        status = self._site.vm_status(vm) if vm else None
        if status is None or self._states.get(vm) == (status.state, status.reason):
            return
        self._states[vm] = (status.state, status.reason)
        if status.state in _WORTH_TELLING:
            self._note(f"{vm} is {status.state}" + (f": {status.reason}" if status.reason else ""))


def _words(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
