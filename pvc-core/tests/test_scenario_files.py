"""A malformed scenario is refused with file, line and key of everything that is wrong."""

from pathlib import Path

import pytest

from pvc_core.config.source import parse
from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin.errors import ConfigError
from pvc_core.testkit.command_line import CommandLine
from pvc_core.testkit.scenario.load import Script, files, understood
from pvc_core.testkit.scenario.play import play
from pvc_core.testkit.scenario.reference import replaced
from pvc_core.testkit.scenario.verbs import VERBS
from pvc_core.testkit.scenario.words import Names, understand

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scenarios.md"

GOOD = """\
description: A hypervisor dies.
nodes:
  n: {count: 3, role: coordinator}
  hv1: {}
vms:
  web: {count: 2, node: hv1}
commands:
  - {at: 5, do: power-cut hv1}
expect:
  - {within: 60, vm: web, runs_on: [n1, n2, n3]}
"""


def read(text: str) -> Script:
    return understood(parse(text, "x.yml"))


def test_names_of_several_are_expanded():
    script = read(GOOD)
    assert list(script.nodes) == ["n1", "n2", "n3", "hv1"]
    assert script.groups["web"] == ("web1", "web2")
    assert script.groups["web2"] == ("web2",)
    assert script.until == 65


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hv1: {}", "hv1: {watchdg: 8}", "x.yml:4: nodes.hv1.watchdg: unknown key; did you mean 'watchdog'?"),
        (
            "hv1: {}",
            "hv1: {levels: [[bcm]]}",
            "x.yml:4: nodes.hv1.levels[0][0]: no device 'bcm' here; did you mean 'bmc'?",
        ),
        ("hv1: {}", "hv1: {memory: plenty}", "x.yml:4: nodes.hv1.memory: memory 'plenty' is not a size"),
        ("hv1: {}", "n2: {}", "x.yml:4: nodes.n2: there is a 'n2' already"),
        ("count: 3", "count: 2", "x.yml:2: nodes: expected 1, 3 or 5 coordinators, found 2"),
        ("node: hv1", "node: hv2", "x.yml:6: vms.web.node: no node 'hv2' here; did you mean 'hv1'?"),
        ("power-cut hv1", "powercut hv1", "x.yml:8: commands[0].do: no command 'powercut'; did you mean 'power-cut'?"),
        ("power-cut hv1", "power-cut hv2", "x.yml:8: commands[0].do: no node 'hv2' here; did you mean 'hv1'?"),
        (
            "power-cut hv1",
            "power-cut",
            "x.yml:8: commands[0].do: write 'power-cut NODES [for SECONDS]', found 'power-cut'",
        ),
        (
            "power-cut hv1",
            "power-cut hv1 for ever",
            "x.yml:8: commands[0].do: expected a number of seconds, found 'ever'",
        ),
        ("power-cut hv1", "power-cut hv1 now", "x.yml:8: commands[0].do: write 'power-cut NODES [for SECONDS]'"),
        ("power-cut hv1", "reset hv1 for 3", "x.yml:8: commands[0].do: write 'reset NODES', found 'reset hv1 for 3'"),
        ("power-cut hv1", "bmc hv1 stuk", "x.yml:8: commands[0].do: no word 'stuk' here; did you mean 'stuck'?"),
        ("power-cut hv1", "operator flsh hv1", "no command 'operator flsh'; did you mean 'operator flush'?"),
        ("power-cut hv1", "device hv1 pdu-a stuck", "x.yml:8: commands[0].do: node hv1 has no fence device 'pdu-a'"),
        ("at: 5, ", "", "x.yml:8: commands[0]: give one of at and when"),
        ("at: 5", "when: hv1 fenced", "x.yml:8: commands[0].when: no stage 'fenced' here; did you mean 'fencing'?"),
        ("at: 5", "when: wb transfer", "x.yml:8: commands[0].when: no node or VM 'wb' here"),
        ("at: 5", "at: -5", "x.yml:8: commands[0].at: expected a number of at least 0"),
        ("at: 5", "at: 5, delay: 3", "x.yml:8: commands[0].delay: it is for when"),
        ("at: 5", "at: 5, refused: no", "x.yml:8: commands[0].refused: only an operator's request can be refused"),
        ("within: 60", "by: 60", "x.yml:10: expect[0].by: unknown key"),
        ("within: 60", "within: 60, at: 3", "x.yml:10: expect[0]: give one of at, within and from"),
        ("within: 60", "within: 60, after: 70", "x.yml:10: expect[0]: it ends (60) before it begins (70)"),
        ("vm: web", "vm: wbe", "x.yml:10: expect[0].vm: no VM 'wbe' here; did you mean 'web'?"),
        ("vm: web", "node: hv1", "x.yml:10: expect[0].runs_on: it is for a VM"),
        ("vm: web", "vm: web, stage: fencing", "x.yml:10: expect[0].stage: it is for a node"),
        ("vm: web", "vm: web, node: hv1", "x.yml:10: expect[0]: give one of vm and node"),
        (", runs_on: [n1, n2, n3]", "", "x.yml:10: expect[0]: it says nothing"),
        ("vm: web, runs_on: [n1, n2, n3]", "vm: web, state: runing", "expected one of"),
        ("runs_on: [n1, n2, n3]", "runs_on: [n1, n4]", "x.yml:10: expect[0].runs_on[1]: no node 'n4' here"),
        ("expect:\n  - {within: 60, vm: web, runs_on: [n1, n2, n3]}", "", "nothing is expected"),
        ("description: A hypervisor dies.\n", "", "the key 'description' is missing"),
        ("expect:", "until: 30\nexpect:", "x.yml:9: until: it ends at 30 s, before 60 s, which is named"),
        ("expect:", "operator_lies: [hv9]\nexpect:", "x.yml:9: operator_lies[0]: no node 'hv9' here"),
        ("expect:", "timing: {leese: 3}\nexpect:", "x.yml:9: timing.leese: unknown key; did you mean 'lease'?"),
        ("expect:", "never: [{vm: web, after: 9, until: 3, down: true}]\nexpect:", "it ends (3) before it begins (9)"),
        ("expect:", "never: [{vm: web}]\nexpect:", "x.yml:9: never[0]: it says nothing"),
    ],
)
def test_a_mistake_is_told_with_file_line_and_key(old: str, new: str, said: str):
    assert old in GOOD
    with pytest.raises(ConfigError) as error:
        read(GOOD.replace(old, new))
    assert said in str(error.value)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ConfigError) as error:
        read(GOOD.replace("power-cut", "powercut").replace("vm: web", "vm: wbe"))
    assert len(str(error.value).splitlines()) == 2


def test_it_is_refused_as_a_whole_with_exit_status_2(tmp_path: Path):
    (tmp_path / "good.yml").write_text(GOOD)
    (tmp_path / "bad.yml").write_text(GOOD.replace("power-cut", "powercut"))
    ran = CommandLine(None)("simulate", str(tmp_path))
    assert (ran.status, ran.out) == (2, "")
    assert f"{tmp_path}/bad.yml:8: commands[0].do: no command 'powercut'" in ran.err


@pytest.mark.parametrize(("name", "said"), [("none.yml", "cannot read the scenario"), ("", "there is no *.yml in")])
def test_a_path_without_scenarios_is_an_error(tmp_path: Path, name: str, said: str):
    ran = CommandLine(None)("simulate", str(tmp_path / name))
    assert ran.status == 2
    assert said in ran.err


def test_a_directory_is_searched_to_its_bottom(tmp_path: Path):
    (tmp_path / "b").mkdir()
    for name in ("z.yml", "b/a.yml", "note.txt"):
        (tmp_path / name).touch()
    assert files([str(tmp_path)]) == [str(tmp_path / "b/a.yml"), str(tmp_path / "z.yml")]


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_a_command_is_written_as_its_usage_says(verb):
    names = Names(["n1", "n2"], {"web": ("web1", "web2")})
    examples = {"NODE": "n1", "NODES": "n1,n2", "OTHER": "n2", "VM": "web", "DEVICE": "bmc", "SECONDS": "30"}
    words = [examples.get(word.strip("[]"), word.split("|")[0]) for word in verb.operands()]
    full = " ".join([verb.name, *words, *(["for", "20"] if verb.may_pass else [])])
    done = understand(full, VERBS, names)
    assert done.verb is verb
    assert done.args.for_s == (20.0 if verb.may_pass else None)
    with pytest.raises(InvalidRequest):
        understand(full + " more", VERBS, names)


def test_the_page_shows_the_schema_of_today():
    page = PAGE.read_text(encoding="utf-8")
    assert replaced(page) == page, "run: python -m pvc_core.testkit.scenario.reference docs/scenarios.md"


def test_the_page_shows_a_scenario_that_comes_true():
    example = PAGE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    assert play(read(example), 0).ok
