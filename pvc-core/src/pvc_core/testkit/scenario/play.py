"""One run of a scenario: the same script and seed give the same run."""

from functools import partial

from pvc_core.model.errors import PvcError
from pvc_core.testkit.scenario.judge import Judge
from pvc_core.testkit.scenario.load import Script, Step
from pvc_core.testkit.scenario.observe import Observer
from pvc_core.testkit.scenario.result import ScenarioRun, Verdict
from pvc_core.testkit.scenario.site import NotSetUp, Site


def play(script: Script, seed: int) -> ScenarioRun:
    """Run a scenario; the seed decides in which order things happen that are due at the same time, and what takes how long."""
    site = Site(script, seed)
    try:
        with site.cluster.trace.listening():
            return _Play(site).run(seed)
    finally:
        site.cluster.close()


class _Play:
    """A run on its way."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._done: dict[int, Verdict] = {}
        """Commands that were tried, by their number, if something is to be said of them."""
        self._left: dict[int, Step] = {}
        """Those whose moment has not come."""

    def run(self, seed: int) -> ScenarioRun:
        """Run it."""
        site = self._site
        try:
            site.set_up()
        except (NotSetUp, AssertionError) as error:
            return ScenarioRun(seed=seed, ok=False, broken=site.plain(str(error)))
        observer = Observer(site, self._triggered)
        for number, step in enumerate(site.script.steps):
            self._left[number] = step
            if step.command.at is not None:
                site.later(step.command.at, partial(self._do, number))
        judge = Judge(site, observer)
        broken = ""
        try:
            site.run(site.script.until, judge.look)
        except AssertionError as error:
            broken = site.plain(str(error))
        timeline = observer.timeline()
        verdicts = (*self._commands(), *judge.verdicts(timeline))
        return ScenarioRun(
            seed=seed,
            ok=not broken and all(verdict.ok for verdict in verdicts),
            broken=broken,
            verdicts=tuple(sorted(verdicts, key=lambda verdict: verdict.line)),
            timeline=timeline,
            virtual_s=round(site.now, 3),
        )

    def _triggered(self, subject: str, what: str) -> None:
        for number, step in list(self._left.items()):
            if step.trigger != (subject, what):
                continue
            # Taken out at once, so that it is done only once.
            del self._left[number]
            self._left_for_later(number, step)

    def _left_for_later(self, number: int, step: Step) -> None:
        def do() -> None:
            self._left[number] = step
            self._do(number)

        if step.command.delay or step.do.verb.request:
            self._site.later(step.command.delay, do)
        else:
            self._site.at_once(do)

    def _do(self, number: int) -> None:
        step = self._left.pop(number)
        self._site.cluster.note(f"==> {step.command.do}")
        refused, expected = "", step.command.refused
        try:
            step.do.verb.call(self._site, step.do.args)
        except PvcError as error:
            refused = str(error)
            self._site.cluster.note(f"refused: {refused}")
        if refused or expected:
            what = f"{step.command.do!r} is refused with {expected!r}" if expected else f"{step.command.do!r} is done"
            ok = bool(refused and expected and expected in refused)
            found = f"it was refused: {refused}" if refused else "it was done"
            self._done[number] = Verdict(line=self._line(number), what=what, ok=ok, found=self._site.plain(found))

    def _commands(self) -> list[Verdict]:
        """Return what is to be said of commands: those that came to another end, and those whose moment never came."""
        missed = [
            Verdict(
                line=self._line(number),
                what=f"{step.command.do!r} is done",
                ok=False,
                found=f"never {step.command.when!r}",
            )
            for number, step in self._left.items()
        ]
        return [*self._done.values(), *missed]

    def _line(self, number: int) -> int:
        return self._site.script.source.line(("commands", number))
