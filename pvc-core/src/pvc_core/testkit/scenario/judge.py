"""Whether what was expected of a scenario came true."""

from typing import Final

from pvc_core.testkit.scenario.conditions import Conditions
from pvc_core.testkit.scenario.observe import Observer
from pvc_core.testkit.scenario.result import TimelineEntry, Verdict
from pvc_core.testkit.scenario.schema import Expectation, Never
from pvc_core.testkit.scenario.site import Site
from pvc_core.testkit.scenario.wording import expected, forbidden

_LOOK_S: Final = 1.0
"""What `pvc cluster status` shows is looked at this often."""


class Judge:
    """Looks at all expectations of a run; ``look`` is called after each step, ``verdicts`` at the end."""

    def __init__(self, site: Site, observer: Observer) -> None:
        self._site = site
        self._observer = observer
        script, conditions = site.script, Conditions(site, observer)
        self._expected = [
            _Expected(conditions, e, script.source.line(("expect", number)))
            for number, e in enumerate(script.scenario.expect)
        ]
        self._never = [
            _Forbidden(conditions, n, script.source.line(("never", number)))
            for number, n in enumerate(script.scenario.never)
        ]
        self._last = -1.0
        for each in self._expected:
            if each.e.at is not None:
                site.later(each.e.at, each.look)

    def look(self) -> None:
        """Take note of what is now."""
        touched, now = self._observer.look(), self._site.now
        if not touched and now == self._last:
            return
        self._last = now
        for never in self._never:
            never.look(now)
        for each in self._expected:
            each.pass_(now)

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


class _Expected:
    """One expectation on its way."""

    def __init__(self, conditions: Conditions, e: Expectation, line: int) -> None:
        self._conditions = conditions
        self.e = e
        self._line = line
        self._ok: bool | None = None
        self._found = ""
        self._looked = -_LOOK_S

    def look(self) -> None:
        """Look at the moment for which it was expected."""
        self._found = self._conditions.contradiction(self.e)
        self._ok = not self._found

    def pass_(self, now: float) -> None:
        """Look in passing."""
        e = self.e
        if e.at is not None or self._ok is not None or (e.problem and now < self._looked + _LOOK_S):
            return
        if e.within is not None and self._conditions.beginning(e) <= now <= e.within:
            self._looked = now
            self._found = self._conditions.contradiction(e)
            if not self._found:
                self._ok, self._found = True, f"at {now:.1f} s"
        elif e.from_ is not None and e.from_ <= now and (e.until is None or now < e.until):
            self._looked = now
            said = self._conditions.contradiction(e)
            if said:
                self._ok, self._found = False, f"{said}, at {now:.1f} s"

    def verdict(self) -> Verdict:
        """Return what came of it."""
        ok = self._ok if self._ok is not None else self.e.from_ is not None
        found = self._found if ok or self._found else "the run ended before"
        return Verdict(line=self._line, what=expected(self.e), ok=ok, found=found)


class _Forbidden:
    """One thing that must not happen."""

    def __init__(self, conditions: Conditions, n: Never, line: int) -> None:
        self._conditions = conditions
        self._n = n
        self._line = line
        self._found = ""

    def look(self, now: float) -> None:
        """Look in passing."""
        if not self._found and self._n.after <= now and (self._n.until is None or now < self._n.until):
            self._found = self._conditions.transgression(self._n, now)

    def verdict(self) -> Verdict:
        """Return what came of it."""
        return Verdict(line=self._line, what=forbidden(self._n), ok=not self._found, found=self._found)
