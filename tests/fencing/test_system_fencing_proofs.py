"""How a node's death is proven, or is not: BMCs that fail, a person's word, nodes that are back meanwhile."""

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


def problems(lab):
    return " / ".join(lab.pvc.json("cluster", "status")["problems"])


def test_node_that_loses_power_with_its_bmc_is_not_recovered_until_a_person_says_that_it_is_dead(lab3):
    lab = lab3
    victim = lab.others(lab.primary())[0]
    guest = lab.guest(victim)
    lab.sandbox.power_cut(victim, bmc=True)
    before = guest.lives()
    lab.eventually("it is said why there is no proof", lambda: (r := lab.record(victim)) and r.round and r.waits_for)
    info = lab.pvc.json("fence", "info", victim)
    assert info["row"]["stage"] == "fencing"
    assert "level 1: " in info["row"]["waits_for"]
    assert f"node {victim} " in problems(lab)
    assert lab.cluster.view("witness")["state"] == "unknown"
    assert guest.lives() == before, "without a proof nothing is started elsewhere"
    lab.pvc("fence", "confirm", victim, "--yes", victim, "--reason", "its rack burns")
    lab.moved(guest, away_from=victim)
    (proof,) = lab.until(victim, "recovered").proofs
    assert (proof.kind, proof.evidence) == ("operator", "its rack burns")
    assert len(guest.lives()) == len(before) + 1
    lab.bring_back(victim)


def test_bmc_with_another_password_is_known_before_it_is_needed_and_the_next_level_is_tried(lab3):
    lab = lab3
    victim = lab.others(lab.primary())[0]
    guest, bmc = lab.guest(victim), lab.sandbox.bmc(victim)
    bmc.change_password()
    lab.eventually("the unusable BMC is a problem of the cluster", lambda: victim in problems(lab))
    password = lab.sandbox.shared / "other-password"
    password.touch(mode=0o600)
    password.write_text((lab.sandbox.layout.bmc_run(int(victim[2:])) / "other-password").read_text())
    parameters = bmc.fence_parameters() | {"password_file": str(password)}
    lab.pvc("fence", "level", "add", victim, "ipmi", *(f"{key}={value}" for key, value in parameters.items()))
    lab.sandbox.freeze(victim)
    before = guest.lives()
    lab.moved(guest, away_from=victim)
    record = lab.until(victim, "recovered")
    assert [(attempt.level, attempt.ok) for attempt in record.attempts] == [(1, False), (2, True)]
    assert "password" in record.attempts[0].message
    assert "fence level 2" in record.proofs[0].evidence
    assert len(guest.lives()) == len(before) + 1
    lab.pvc("fence", "level", "remove", victim, "2", "--yes")
    lab.bring_back(victim)


@pytest.mark.parametrize("stage", ["suspected", "fencing", "proven"])
def test_power_that_comes_back_during_recovery_starts_no_second_copy(lab3, stage):
    lab = lab3
    victim = lab.others(lab.primary())[0]
    guest, bmc, lease = lab.guest(victim), lab.sandbox.bmc(victim), lab.lease(victim)
    if stage == "fencing":
        bmc.hang()  # so that this stage lasts
    lab.sandbox.power_cut(victim)
    before = guest.lives()
    lab.eventually(
        f"its loss is {stage}, or further",
        lambda: (r := lab.record(victim)) and r.lease == lease and (r.stage == stage or r.proofs),
    )
    lab.sandbox.power_on(victim)
    lab.eventually("its guest runs again", lambda: len(guest.lives()) > len(before), 90.0)
    lab.bring_back(victim)
    lab.goes_on(guest, 10)
    assert len(guest.lives()) == len(before) + 1
    assert lab.record(victim).stage == ("returned" if lab.record(victim).proofs else "cancelled")


def test_node_that_wakes_up_while_it_is_being_fenced_runs_nothing_twice(lab3):
    lab = lab3
    victim = lab.others(lab.primary())[0]
    guest, bmc = lab.guest(victim), lab.sandbox.bmc(victim)
    bmc.slow(4.0)
    before, told = guest.lives(), len(bmc.received())
    lab.sandbox.freeze(victim)
    lab.eventually("its BMC has been told", lambda: "power=0" in bmc.received()[told:])
    lab.sandbox.thaw(victim)
    lab.eventually("its power is off", lambda: not lab.sandbox.host(victim).running)
    lab.moved(guest, away_from=victim)
    lab.until(victim, "recovered")
    lives = guest.lives()
    assert lives[len(before) - 1].boot == before[-1].boot
    assert [life.hosts[0] == victim for life in lives[len(before) :]] == [False]
    lab.bring_back(victim)
    lab.goes_on(guest, 10)
    assert len(guest.lives()) == len(lives)
