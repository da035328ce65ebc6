"""Nodes with a watchdog: proven dead when it must have reset them, where nothing else can prove it."""

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


def check_recovered(lab, victim, guest, before):
    lab.moved(guest, away_from=victim)
    record = lab.until(victim, "recovered")
    assert [proof.kind for proof in record.proofs] == ["watchdog-expired"]
    assert lab.sandbox.host(victim).running is False
    lives = guest.lives()
    assert len(lives) == len(before) + 1
    assert lives[-2].boot == before[-1].boot
    lab.bring_back(victim)


def test_node_that_loses_power_with_its_bmc_is_recovered_within_a_minute(watched_lab):
    lab = watched_lab
    victim = lab.others(lab.primary())[0]
    guest = lab.guest(victim)
    before = guest.lives()
    forecast = lab.pvc.json("fence", "status", victim)["outlook"]
    assert {way["means"]: way["expected"] for way in forecast["prospects"]}["watchdog"] == "yes"
    lab.sandbox.power_cut(victim, bmc=True)
    check_recovered(lab, victim, guest, before)


def test_guest_of_a_node_that_nobody_reaches_has_ended_before_it_runs_elsewhere(watched_lab):
    lab = watched_lab
    victim = lab.others(lab.primary())[0]
    guest = lab.guest(victim)
    before = guest.lives()
    lab.sandbox.bmc(victim).dead()
    lab.sandbox.cut_link(victim, management=True)
    lab.goes_on(guest, 6)  # its disk is still within reach
    check_recovered(lab, victim, guest, before)
