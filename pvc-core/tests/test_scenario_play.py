"""Runs of scenarios: what is told when one does not come true, and that a seed decides all of a run."""

from pathlib import Path

import pytest

from pvc_core.config.source import parse
from pvc_core.testkit.command_line import CommandLine
from pvc_core.testkit.scenario.load import understood
from pvc_core.testkit.scenario.play import play
from pvc_core.testkit.scenario.result import ScenarioRun

HEAD = """\
description: A hypervisor dies.
nodes:
  n: {count: 3, role: coordinator}
  hv: {count: 2}
vms:
  web: {count: 2, node: hv1}
commands:
  - {at: 5, do: power-cut hv1}
"""
TRUE = HEAD + "expect:\n  - {within: 60, vm: web, runs_on: [n1, n2, n3, hv2]}\n"


def run(text: str, seed: int = 0) -> ScenarioRun:
    return play(understood(parse(text, "x.yml")), seed)


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    assert run(TRUE, 3) == run(TRUE, 3)
    assert run(TRUE, 3).timeline != run(TRUE, 4).timeline


@pytest.mark.parametrize(
    ("rest", "what", "found"),
    [
        ("expect:\n  - {at: 10, vm: web, runs_on: [hv2]}", "web runs on hv2 at 10 s", "web1 executes nowhere"),
        ("expect:\n  - {within: 10, vm: web, starts: 2}", "web was started 2 times within 10 s", "was started 0 times"),
        ("expect:\n  - {within: 60, vm: web, state: failed}", "web is failed within 60 s", "web1 executes on"),
        (
            "expect:\n  - {within: 60, vm: web, per_node: 1, runs_on: [hv1]}",
            "no more than 1 on one node",
            "executes on",
        ),
        ("expect:\n  - {at: 60, node: hv1, stage: cancelled}", "hv1 is cancelled at 60 s", "its fencing is recovered"),
        ("expect:\n  - {at: 60, node: hv1, proof: operator}", "proven dead by operator", "proofs: power-off-confirmed"),
        ("expect:\n  - {at: 60, node: hv1, waits_for: luck}", "waits for 'luck'", "it waits for ''"),
        ("expect:\n  - {at: 60, node: hv1, alive: true}", "has its lease", "it has no lease"),
        ("expect:\n  - {at: 60, node: hv1, power: on}", "has power", "it has no power"),
        ("expect:\n  - {at: 60, node: n2, primary: true}", "is primary", "the primary is n1"),
        ("expect:\n  - {at: 60, node: hv2, scheduling: drain}", "is put to drain", "its spec says ready"),
        ("expect:\n  - {from: 0, until: 60, vm: web, runs_on: [hv1]}", "from 0 s until 60 s", "executes nowhere"),
        ("expect:\n  - {at: 60, problem: on fire}", "the cluster says 'on fire'", "problems: "),
        ("never:\n  - {vm: web, down: true}", "web never executes nowhere", "executes nowhere at 5.0 s"),
        ("never:\n  - {vm: web, starts: true}\nuntil: 60", "web never is started", "was started at"),
        ("never:\n  - {vm: web, runs_on: [n1, n2, n3, hv2]}\nuntil: 60", "web never executes on", "executes on"),
        ("never:\n  - {node: hv1, stage: proven}\nuntil: 60", "hv1 never is proven", "it was proven at"),
        (
            "never:\n  - {node: hv1, proof: power-off-confirmed}\nuntil: 60",
            "never is proven dead",
            "the proof is there",
        ),
        ("never:\n  - {node: hv1, power: off}", "hv1 never has power off", "power was off at 5.0 s"),
        ("never:\n  - {node: n1, primary: true}", "n1 never is primary", "it was primary at"),
        (
            "events:\n  - hv1 (lease 1) is fencing\n  - power-cut hv1\nuntil: 60",
            "after 'hv1 (lease 1) is",
            "only earlier, at 5.0 s",
        ),
        ("events:\n  - hv2 is fencing", "the timeline has 'hv2 is fencing'", "nowhere"),
    ],
)
def test_what_did_not_come_true_is_told_with_what_was_found(rest: str, what: str, found: str):
    done = run(HEAD + rest)
    assert not done.ok
    assert not done.broken
    (verdict,) = [verdict for verdict in done.verdicts if not verdict.ok]
    assert what in verdict.what
    assert found in verdict.found
    assert verdict.line in (10, 11)


def test_a_moment_that_never_comes_and_a_request_that_is_refused_are_told():
    more = '  - {when: hv2 fencing, do: reset n1}\n  - {at: 1, do: operator fence-confirm hv1}\nuntil: 60\nevents: ["power is off"]'
    wrong = {verdict.line: verdict for verdict in run(HEAD + more).verdicts if not verdict.ok}
    assert wrong[9].found == "never 'hv2 fencing'"
    assert "it was refused: node hv1 has its lease" in wrong[10].found


def test_a_refusal_that_was_expected_but_did_not_come_is_told():
    more = "  - {at: 1, do: operator flush hv2, refused: nonsense}\nnever:\n  - {node: hv2, stage: suspected}"
    (verdict,) = [verdict for verdict in run(HEAD + more).verdicts if not verdict.ok]
    assert (verdict.line, verdict.found) == (9, "it was done")


def test_a_broken_invariant_fails_a_scenario_whatever_it_expects():
    lying = """\
description: An operator confirms the death of a node that lives.
nodes:
  n: {count: 3, role: coordinator}
  hv1: {levels: []}
vms:
  web: {node: hv1}
commands:
  - {at: 5, do: store-link hv1 cut}
  - {at: 60, do: operator fence-confirm hv1}
expect:
  - {at: 5, node: hv1, power: on}
until: 90
"""
    done = run(lying)
    assert not done.ok
    assert "operator records operator of hv1" in done.broken
    assert run(lying + "operator_lies: [hv1]\n").ok


def test_a_cluster_that_cannot_begin_is_told():
    crowded = HEAD.replace("hv: {count: 2}", "hv: {count: 2, memory: 2G}").replace(
        "node: hv1}", "node: hv1, memory: 1500M}"
    )
    done = run(crowded + "never:\n  - {node: hv2, stage: suspected}")
    assert not done.ok
    assert "the scenario cannot begin" in done.broken or "cannot be defined" in done.broken


# --- the command -----------------------------------------------------------------------------------------


def test_the_command_prints_timeline_verdicts_and_a_summary(tmp_path: Path):
    (tmp_path / "a.yml").write_text(TRUE)
    ran = CommandLine(None)("simulate", str(tmp_path / "a.yml"))
    assert ran.status == 0
    assert "     5.00  ==> power-cut hv1\n" in ran.out
    assert f"  yes  {tmp_path}/a.yml:10: web runs on n1 or n2 or n3 or hv2 within 60 s: at " in ran.out
    assert f"ok      {tmp_path}/a.yml\n" in ran.out


def test_a_scenario_that_fails_gives_exit_status_1_and_how_to_see_it_again(tmp_path: Path):
    (tmp_path / "a.yml").write_text(TRUE)
    (tmp_path / "b.yml").write_text(TRUE.replace("within: 60", "within: 10"))
    ran = CommandLine(None)("simulate", "--quiet", "--seeds", "2", "--seed", "7", str(tmp_path))
    assert ran.status == 1
    ok, wrong, summary, total = ran.out.splitlines()
    assert ok == f"ok      {tmp_path}/a.yml with 2 seeds"
    assert wrong.startswith(
        f"  NO   {tmp_path}/b.yml:10: web runs on n1 or n2 or n3 or hv2 within 10 s: web1 executes nowhere"
    )
    assert summary == f"FAILED  {tmp_path}/b.yml 2 of 2 seeds (pvc simulate --seed 7 {tmp_path}/b.yml)"
    assert total == "2 scenarios, 1 failed"


@pytest.mark.parametrize("within", [60, 10])
def test_json_has_every_run_with_verdicts_and_timeline(tmp_path: Path, within: int):
    (tmp_path / "a.yml").write_text(TRUE.replace("within: 60", f"within: {within}"))
    ran = CommandLine(None)("simulate", "--format", "json", "--seeds", "2", str(tmp_path / "a.yml"))
    assert ran.status == (within == 10)
    (result,) = ran.json()
    assert result["ok"] is (within == 60)
    assert [each["seed"] for each in result["runs"]] == [0, 1]
    assert all(each["timeline"] and each["verdicts"] for each in result["runs"])
