"""Whether what a file says is true now."""

from collections import Counter
from collections.abc import Callable

from pvc_core.testkit.scenario.observe import Observer
from pvc_core.testkit.scenario.schema import Expectation, Never
from pvc_core.testkit.scenario.site import Site
from pvc_core.testkit.scenario.wording import executes


class Conditions:
    """Compares what is expected with a site as it is."""

    def __init__(self, site: Site, observer: Observer) -> None:
        self._site = site
        self._observer = observer

    def contradiction(self, e: Expectation) -> str:
        """Return what speaks against an expectation now, empty when it is true."""
        if e.vm:
            return self._vms(e)
        if e.node:
            return self._node(e)
        problems = self._site.problems()
        return "" if any(e.problem in problem for problem in problems) else f"problems: {'; '.join(problems) or 'none'}"

    def beginning(self, e: Expectation) -> float:
        """Return from when on something is looked for."""
        return e.after if e.after is not None else self._site.script.first

    def _vms(self, e: Expectation) -> str:
        vms = self._site.script.groups[e.vm]
        for vm in vms:
            said = self._vm(e, vm)
            if said:
                return said
        if e.per_node is not None:
            counts = Counter(host for vm in vms for host in self._observer.hosts[vm])
            if counts and max(counts.values()) > e.per_node:
                return "executing: " + ", ".join(f"{n} on {host}" for host, n in sorted(counts.items()))
        return ""

    def _vm(self, e: Expectation, vm: str) -> str:
        hosts = self._observer.hosts[vm]
        if e.runs_on and not (len(hosts) == 1 and hosts[0] in e.runs_on):
            return f"{vm} {executes(hosts)}{self._state(vm)}"
        if e.starts is not None and len(self._observer.starts[vm]) != e.starts:
            return f"{vm} was started {len(self._observer.starts[vm])} times"
        if e.state is not None or e.reason:
            status = self._site.vm_status(vm)
            state = status.state if status is not None else None
            if (e.state is not None and state is not e.state) or (e.state == "running" and not hosts):
                return f"{vm} {executes(hosts)}{self._state(vm)}"
            if status is None or e.reason not in status.reason:
                return f"the reason is {status.reason if status else ''!r}"
        return ""

    def _state(self, vm: str) -> str:
        status = self._site.vm_status(vm)
        return (
            f"; it is {status.state}" + (f" ({status.reason})" if status.reason else "") if status is not None else ""
        )

    def _node(self, e: Expectation) -> str:
        site, record = self._site, self._site.record(e.node)
        host, spec = site.node(e.node), site.spec(e.node)
        primary = site.primary()
        checks: list[tuple[bool, Callable[[], str]]] = [
            (e.stage is None or self._has_stage(e), lambda: f"its fencing is {record.stage if record else 'none'}"),
            (
                e.proof is None or (record is not None and any(proof.kind is e.proof for proof in record.proofs)),
                lambda: f"proofs: {', '.join(proof.kind for proof in record.proofs) or 'none' if record else 'none'}",
            ),
            (
                not e.waits_for or (record is not None and e.waits_for in record.waits_for),
                lambda: f"it waits for {record.waits_for if record else ''!r}",
            ),
            (
                e.alive is None or e.alive is (site.lease(e.node) is not None),
                lambda: "it has no lease" if e.alive else "it has its lease",
            ),
            (
                e.power is None or (e.power == "on") is host.power.on,
                lambda: f"it has {'' if host.power.on else 'no '}power",
            ),
            (e.primary is None or e.primary is (primary == e.node), lambda: f"the primary is {primary}"),
            (
                e.scheduling is None or (spec is not None and spec.scheduling == e.scheduling),
                lambda: f"its spec says {spec.scheduling if spec else None}",
            ),
        ]
        return next((said() for ok, said in checks if not ok), "")

    def _has_stage(self, e: Expectation) -> bool:
        record, log = self._site.record(e.node), self._observer.stages[e.node]
        if (record.stage if record is not None else "none") == e.stage:
            return True
        # A stage may last for no time at all.
        return e.within is not None and any(stage == e.stage and at >= self.beginning(e) for at, stage in log)

    def transgression(self, n: Never, now: float) -> str:
        """Return in how far something happens, or has happened, that must not; empty: it does not."""
        if n.vm:
            return next((s for vm in self._site.script.groups[n.vm] if (s := self._of_vm(n, vm, now))), "")
        site, record = self._site, self._site.record(n.node)
        for at, stage in self._observer.stages[n.node]:
            if stage is n.stage and at >= n.after:
                return f"it was {stage} at {at:.1f} s"
        if n.proof is not None and record is not None and any(proof.kind is n.proof for proof in record.proofs):
            return f"the proof is there at {now:.1f} s"
        if n.power is not None and (n.power == "on") is site.node(n.node).power.on:
            return f"power was {n.power} at {now:.1f} s"
        if n.primary and site.primary() == n.node:
            return f"it was primary at {now:.1f} s"
        return ""

    def _of_vm(self, n: Never, vm: str, now: float) -> str:
        hosts = self._observer.hosts[vm]
        if set(hosts) & set(n.runs_on):
            return f"{vm} {executes(hosts)} at {now:.1f} s"
        if n.down and not hosts:
            return f"{vm} {executes(hosts)} at {now:.1f} s"
        started = [at for at in self._observer.starts[vm] if at >= n.after]
        if n.starts and started:
            return f"{vm} was started at {started[0]:.1f} s"
        return ""
