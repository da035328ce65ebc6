"""Whether what was expected of a scenario came true."""

from collections import Counter
from collections.abc import Callable
from typing import Final

from pvc_core.testkit.scenario.observe import Observer
from pvc_core.testkit.scenario.result import TimelineEntry, Verdict
from pvc_core.testkit.scenario.schema import Expectation, Never
from pvc_core.testkit.scenario.site import Site

_LOOK_S: Final = 1.0
"""What `pvc cluster status` shows is looked at this often."""


class Judge:
    """Looks at all expectations of a run; ``look`` is called after each step, ``verdicts`` at the end."""

    def __init__(self, site: Site, observer: Observer) -> None:
        self._site = site
        self._observer = observer
        script = site.script
        self._expected = [
            _Expected(self, e, script.source.line(("expect", number)))
            for number, e in enumerate(script.scenario.expect)
        ]
        self._never = [
            _Forbidden(self, n, script.source.line(("never", number))) for number, n in enumerate(script.scenario.never)
        ]
        self._last = -1.0
        for expected in self._expected:
            if expected.e.at is not None:
                site.later(expected.e.at, expected.look)

    def look(self) -> None:
        """Take note of what is now."""
        touched, now = self._observer.look(), self._site.now
        if not touched and now == self._last:
            return
        self._last = now
        for forbidden in self._never:
            forbidden.look(now)
        for expected in self._expected:
            expected.pass_(now)

    def verdicts(self, timeline: tuple[TimelineEntry, ...]) -> tuple[Verdict, ...]:
        """Return what came of everything, in the order of the file."""
        found = [*(e.verdict() for e in self._expected), *(n.verdict() for n in self._never), *self._events(timeline)]
        return tuple(sorted(found, key=lambda verdict: verdict.line))

    def _events(self, timeline: tuple[TimelineEntry, ...]) -> list[Verdict]:
        script = self._site.script
        found: list[Verdict] = []
        position, last = 0, ""
        for number, text in enumerate(script.scenario.events):
            line, what = script.source.line(("events", number)), f"the timeline has {text!r}{last}"
            at = next((i for i in range(position, len(timeline)) if text in timeline[i].what), None)
            if at is None:
                earlier = next((entry.at for entry in timeline if text in entry.what), None)
                where = "nowhere" if earlier is None else f"only earlier, at {earlier:.1f} s"
                found.append(Verdict(line=line, what=what, ok=False, found=where))
            else:
                position, last = at + 1, f" after {text!r}"
                found.append(Verdict(line=line, what=what, ok=True, found=f"at {timeline[at].at:.1f} s"))
        return found

    # --- what is true now -------------------------------------------------------------------------------

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
            return f"{vm} {_executes(hosts)}{self._state(vm)}"
        if e.starts is not None and len(self._observer.starts[vm]) != e.starts:
            return f"{vm} was started {len(self._observer.starts[vm])} times"
        if e.state is not None or e.reason:
            status = self._site.vm_status(vm)
            state = status.state if status is not None else None
            if (e.state is not None and state is not e.state) or (e.state == "running" and not hosts):
                return f"{vm} {_executes(hosts)}{self._state(vm)}"
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
            return f"{vm} {_executes(hosts)} at {now:.1f} s"
        if n.down and not hosts:
            return f"{vm} {_executes(hosts)} at {now:.1f} s"
        started = [at for at in self._observer.starts[vm] if at >= n.after]
        if n.starts and started:
            return f"{vm} was started at {started[0]:.1f} s"
        return ""


class _Expected:
    """One expectation on its way."""

    def __init__(self, judge: Judge, e: Expectation, line: int) -> None:
        self._judge = judge
        self.e = e
        self._line = line
        self._ok: bool | None = None
        self._found = ""
        self._looked = -_LOOK_S

    def look(self) -> None:
        """Look at the moment for which it was expected."""
        self._found = self._judge.contradiction(self.e)
        self._ok = not self._found

    def pass_(self, now: float) -> None:
        """Look in passing."""
        e = self.e
        if e.at is not None or self._ok is not None or (e.problem and now < self._looked + _LOOK_S):
            return
        if e.within is not None and self._judge.beginning(e) <= now <= e.within:
            self._looked = now
            self._found = self._judge.contradiction(e)
            if not self._found:
                self._ok, self._found = True, f"at {now:.1f} s"
        elif e.from_ is not None and e.from_ <= now and (e.until is None or now < e.until):
            self._looked = now
            said = self._judge.contradiction(e)
            if said:
                self._ok, self._found = False, f"{said}, at {now:.1f} s"

    def verdict(self) -> Verdict:
        """Return what came of it."""
        ok = self._ok if self._ok is not None else self.e.from_ is not None
        return Verdict(line=self._line, what=_expected(self.e), ok=ok, found=self._found)


class _Forbidden:
    """One thing that must not happen."""

    def __init__(self, judge: Judge, n: Never, line: int) -> None:
        self._judge = judge
        self._n = n
        self._line = line
        self._found = ""

    def look(self, now: float) -> None:
        """Look in passing."""
        if not self._found and self._n.after <= now and (self._n.until is None or now < self._n.until):
            self._found = self._judge.transgression(self._n, now)

    def verdict(self) -> Verdict:
        """Return what came of it."""
        return Verdict(line=self._line, what=_forbidden(self._n), ok=not self._found, found=self._found)


def _executes(hosts: list[str]) -> str:
    return f"executes on {', '.join(hosts)}" if hosts else "executes nowhere"


def _expected(e: Expectation) -> str:
    parts: list[str] = []
    if e.runs_on:
        parts.append(f"runs on {' or '.join(e.runs_on)}")
    if e.starts is not None:
        parts.append(f"was started {e.starts} times")
    if e.per_node is not None:
        parts.append(f"has no more than {e.per_node} on one node")
    if e.state is not None or e.reason:
        parts.append(f"is {e.state or 'so'}" + (f" because of {e.reason!r}" if e.reason else ""))
    if e.stage is not None:
        parts.append(f"is {e.stage}" if e.stage != "none" else "was never lost")
    if e.proof is not None:
        parts.append(f"is proven dead by {e.proof}")
    if e.waits_for:
        parts.append(f"waits for {e.waits_for!r}")
    if e.alive is not None:
        parts.append("has its lease" if e.alive else "has no lease")
    if e.power is not None:
        parts.append("has power" if e.power == "on" else "has no power")
    if e.primary is not None:
        parts.append("is primary" if e.primary else "is not primary")
    if e.scheduling is not None:
        parts.append(f"is put to {e.scheduling}")
    if e.problem:
        parts.append(f"says {e.problem!r}")
    if e.at is not None:
        when = f"at {e.at:g} s"
    elif e.within is not None:
        when = f"within {e.within:g} s" + (f", after {e.after:g} s" if e.after else "")
    else:
        when = f"from {e.from_:g} s" + (f" until {e.until:g} s" if e.until is not None else " on")
    return f"{e.vm or e.node or 'the cluster'} {' and '.join(parts)} {when}"


def _forbidden(n: Never) -> str:
    parts: list[str] = []
    if n.runs_on:
        parts.append(f"executes on {' or '.join(n.runs_on)}")
    if n.down:
        parts.append("executes nowhere")
    if n.starts:
        parts.append("is started")
    if n.stage is not None:
        parts.append(f"is {n.stage}")
    if n.proof is not None:
        parts.append(f"is proven dead by {n.proof}")
    if n.power is not None:
        parts.append(f"has power {n.power}")
    if n.primary:
        parts.append("is primary")
    when = (f" after {n.after:g} s" if n.after else "") + (f" until {n.until:g} s" if n.until is not None else "")
    return f"{n.vm or n.node} never {' or '.join(parts)}{when}"
