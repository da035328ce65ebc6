"""Reading scenario files.  Every mistake is told, each with file, line, key, what was found and what is expected."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from pvc_core.config.load import COORDINATORS
from pvc_core.config.source import Source, parse
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.fence import FenceStage
from pvc_core.model.names import check_name
from pvc_core.model.units import parse_mib
from pvc_core.model.vm import MigrationPhase
from pvc_core.plugin.config import InvalidSection, decode
from pvc_core.plugin.errors import ConfigError
from pvc_core.testkit.scenario.schema import Command, Expectation, Never, NodeEntry, Scenario, VmEntry
from pvc_core.testkit.scenario.verbs import VERBS
from pvc_core.testkit.scenario.words import Do, Names, known, understand

E = TypeVar("E", NodeEntry, VmEntry)
Keys = tuple[str | int, ...]

_SUFFIX: Final = ".yml"
_SPARE_S: Final = 5.0
_DEVICES: Final = ("bmc", "pdu-a", "pdu-b")
_OF_VM: Final = ("runs_on", "state", "reason", "starts", "per_node", "down")
_OF_NODE: Final = ("stage", "proof", "waits_for", "alive", "power", "primary", "scheduling")


class Step(NamedTuple):
    """A command with what it means."""

    command: Command
    do: Do
    trigger: tuple[str, str] | None
    """Node and stage, or VM and phase, at which it is done."""


class Script(NamedTuple):
    """A scenario that makes sense."""

    source: Source
    scenario: Scenario
    nodes: dict[str, NodeEntry]
    vms: dict[str, VmEntry]
    groups: dict[str, tuple[str, ...]]
    """Names of VMs and of groups of VMs -> the VMs."""
    steps: tuple[Step, ...]
    until: float

    @property
    def first(self) -> float:
        """When the first command comes."""
        return min((step.command.at for step in self.steps if step.command.at is not None), default=0.0)

    @property
    def path(self) -> str:
        """The file."""
        return self.source.path


def files(paths: list[str]) -> list[str]:
    """Return the files themselves, and those in directories (``*.yml``, also in directories within).  Raises InvalidRequest."""
    found: list[str] = []
    for path in paths:
        if Path(path).is_dir():
            inner = sorted(str(file) for file in Path(path).rglob(f"*{_SUFFIX}"))
            if not inner:
                raise InvalidRequest(f"there is no *{_SUFFIX} in {path}")
            found += inner
        else:
            found.append(path)
    return found


def load(path: str) -> Script:
    """Read a scenario.  Raises ConfigError with everything that is wrong, one line each."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the scenario {path}: {error.strerror}") from None
    return understood(parse(text, path))


def understood(source: Source) -> Script:
    """Return a scenario that was read.  Raises ConfigError with everything that is wrong, one line each."""
    try:
        scenario = decode(source.value, Scenario)
    except InvalidSection as error:
        raise ConfigError(source.explain(error)) from None
    reading = _Reading(source, scenario)
    script = reading.script()
    if reading.wrong:
        wrong = sorted(reading.wrong, key=lambda found: source.line(found[0]))
        raise ConfigError("\n".join(source.problem(*found) for found in wrong))
    return script


class _Reading:
    """What is wrong with a scenario beyond its types."""

    def __init__(self, source: Source, scenario: Scenario) -> None:
        self._source = source
        self._s = scenario
        self.wrong: list[tuple[Keys, str]] = []
        self._nodes, _ = self._expanded("nodes", scenario.nodes)
        self._vms, self._groups = self._expanded("vms", scenario.vms)
        self._names = Names(self._nodes, self._groups)

    def script(self) -> Script:
        """Return the scenario; it makes sense when nothing is wrong."""
        self._check_nodes()
        self._check_vms()
        steps = [step for number, command in enumerate(self._s.commands) if (step := self._step(number, command))]
        for number, expectation in enumerate(self._s.expect):
            self._check_expectation(("expect", number), expectation)
        for number, never in enumerate(self._s.never):
            self._check_never(("never", number), never)
        for number, node in enumerate(self._s.operator_lies):
            self._known(("operator_lies", number), node, self._nodes, "node")
        if not (self._s.expect or self._s.events or self._s.never):
            self.wrong.append((("expect",), "nothing is expected: give expect, events or never"))
        last = max(self._moments(), default=0.0)
        if self._s.until is not None and self._s.until < last:
            self.wrong.append((("until",), f"it ends at {self._s.until:g} s, before {last:g} s, which is named"))
        until = self._s.until if self._s.until is not None else last + _SPARE_S
        return Script(self._source, self._s, self._nodes, self._vms, self._groups, tuple(steps), until)

    def _moments(self) -> Iterator[float]:
        for command in self._s.commands:
            yield from (command.at or 0.0, command.delay)
        for expectation in self._s.expect:
            yield from (getattr(expectation, moment) or 0.0 for moment in ("at", "within", "from_", "until"))
        for never in self._s.never:
            yield from (never.after, never.until or 0.0)

    def _try(self, keys: Keys, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except InvalidRequest as error:
            self.wrong.append((keys, str(error)))
            return None

    def _known(self, keys: Keys, word: str, words: Any, what: str) -> None:
        self._try(keys, lambda: known(word, words, what))

    # --- nodes and VMs --------------------------------------------------------------------------------

    def _expanded(self, section: str, entries: dict[str, E]) -> tuple[dict[str, E], dict[str, tuple[str, ...]]]:
        """Return all of them by their own names, and the names of groups."""
        each: dict[str, E] = {}
        groups: dict[str, tuple[str, ...]] = {}
        for name, entry in entries.items():
            keys = (section, name)
            self._try(keys, partial(check_name, name, "the name"))
            names = (name,) if entry.count is None else tuple(f"{name}{i}" for i in range(1, entry.count + 1))
            for one in names:
                if one in each:
                    self.wrong.append((keys, f"there is a {one!r} already"))
                each[one] = entry
                groups[one] = (one,)
            groups[name] = names
        return each, groups

    def _check_nodes(self) -> None:
        coordinators = sum(node.role == "coordinator" for node in self._nodes.values())
        if coordinators not in COORDINATORS:
            self.wrong.append((("nodes",), f"expected 1, 3 or 5 coordinators, found {coordinators}"))
        for name, node in self._s.nodes.items():
            self._try(("nodes", name, "memory"), partial(parse_mib, node.memory))
            for level, devices in enumerate(node.levels):
                for index, device in enumerate(devices):
                    self._known(("nodes", name, "levels", level, index), device, _DEVICES, "device")

    def _check_vms(self) -> None:
        for name, vm in self._s.vms.items():
            self._try(("vms", name, "memory"), partial(parse_mib, vm.memory))
            if vm.node is not None:
                self._known(("vms", name, "node"), vm.node, self._nodes, "node")
            for index, node in enumerate(vm.node_limit):
                self._known(("vms", name, "node_limit", index), node, self._nodes, "node")

    # --- commands -------------------------------------------------------------------------------------

    def _step(self, number: int, command: Command) -> Step | None:
        keys: Keys = ("commands", number)
        if (command.at is None) is (not command.when):
            self.wrong.append((keys, "give one of at and when"))
        if command.delay and not command.when:
            self.wrong.append(((*keys, "delay"), "it is for when"))
        do = self._try((*keys, "do"), lambda: understand(command.do, VERBS, self._names))
        trigger = self._try((*keys, "when"), lambda: self._trigger(command.when)) if command.when else None
        if do is None:
            return None
        for node in do.args.nodes:
            devices = {device for level in self._nodes[node].levels for device in level}
            if do.args.device and do.args.device not in devices:
                self.wrong.append(((*keys, "do"), f"node {node} has no fence device {do.args.device!r} in its levels"))
        if command.refused and not do.verb.request:
            self.wrong.append(((*keys, "refused"), "only an operator's request can be refused"))
        return Step(command, do, trigger)

    def _trigger(self, when: str) -> tuple[str, str]:
        words = when.split()
        if len(words) != 2:
            raise InvalidRequest(f"expected a node and a stage, or a VM and a phase, found {when!r}")
        if words[0] in self._nodes:
            known(words[1], [stage.value for stage in FenceStage], "stage")
        else:
            known(words[0], [*self._nodes, *self._vms], "node or VM")
            known(words[1], [phase.value for phase in MigrationPhase], "phase")
        return words[0], words[1]

    # --- what is expected -------------------------------------------------------------------------------

    def _check_expectation(self, keys: Keys, e: Expectation) -> None:
        if sum(moment is not None for moment in (e.at, e.within, e.from_)) != 1:
            self.wrong.append((keys, "give one of at, within and from"))
        if e.after is not None and e.within is None:
            self.wrong.append(((*keys, "after"), "it is for within"))
        if e.until is not None and e.from_ is None:
            self.wrong.append(((*keys, "until"), "it is for from"))
        for first, last in ((e.after, e.within), (e.from_, e.until)):
            if first is not None and last is not None and last < first:
                self.wrong.append((keys, f"it ends ({last:g}) before it begins ({first:g})"))
        if e.problem:
            subjects = [word for word in ("vm", "node") if getattr(e, word)]
            self.wrong += [((*keys, word), "problem is about the whole cluster") for word in subjects]
        self._check_subject(keys, e, needs=not e.problem)

    def _check_never(self, keys: Keys, n: Never) -> None:
        if n.until is not None and n.until < n.after:
            self.wrong.append((keys, f"it ends ({n.until:g}) before it begins ({n.after:g})"))
        self._check_subject(keys, n, needs=True)

    def _check_subject(self, keys: Keys, what: Expectation | Never, *, needs: bool) -> None:
        given = {field.name for field in msgspec.structs.fields(what) if getattr(what, field.name) != field.default}
        of_vm, of_node = given.intersection(_OF_VM), given.intersection(_OF_NODE)
        if needs and bool(what.vm) is bool(what.node):
            self.wrong.append((keys, "give one of vm and node"))
            return
        for word in of_node if what.vm or not needs else ():
            self.wrong.append(((*keys, word), "it is for a node"))
        for word in of_vm if what.node or not needs else ():
            self.wrong.append(((*keys, word), "it is for a VM"))
        if needs and not (of_vm or of_node):
            self.wrong.append((keys, "it says nothing: give what is to be true of it"))
        if what.vm:
            self._known((*keys, "vm"), what.vm, self._groups, "VM")
        if what.node:
            self._known((*keys, "node"), what.node, self._nodes, "node")
        for index, node in enumerate(what.runs_on):
            self._known((*keys, "runs_on", index), node, self._nodes, "node")
