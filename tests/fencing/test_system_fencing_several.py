"""Several nodes are lost, of five: also the one that was fencing the other."""

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


def guests_on(lab, *nodes):
    return {node: lab.guest(node, f"on-{node}") for node in nodes}


def check_recovered(lab, guests, before):
    """Wait until each guest of a lost node executes elsewhere, and check that it began anew just once."""
    for node, guest in guests.items():
        assert lab.moved(guest, away_from=node) not in guests
        assert [proof.kind for proof in lab.until(node, "recovered").proofs] == ["power-off-confirmed"]
    lab.bring_back(*guests)
    for node, guest in guests.items():
        lives = guest.lives()
        assert len(lives) == len(before[node]) + 1
        assert lives[len(before[node]) - 1].boot == before[node][-1].boot


def test_two_nodes_that_are_lost_at_once_are_both_recovered(lab5):
    lab = lab5
    victims = lab.others(lab.primary())[:2]
    guests = guests_on(lab, *victims)
    before = {node: guest.lives() for node, guest in guests.items()}
    lab.sandbox.power_cut(victims[0])
    lab.sandbox.cut_link(victims[1])
    check_recovered(lab, guests, before)


def test_primary_that_is_lost_while_it_fences_is_followed_by_one_that_goes_on(lab5):
    lab, primary = lab5, lab5.primary()
    victim = lab.others(primary)[0]
    guests = guests_on(lab, victim, primary)
    before = {node: guest.lives() for node, guest in guests.items()}
    lab.sandbox.bmc(victim).slow(4.0)
    lease = lab.lease(victim)
    lab.sandbox.freeze(victim)
    lab.eventually(
        "it is being fenced", lambda: (r := lab.record(victim)) and r.lease == lease and r.stage == "fencing"
    )
    lab.sandbox.power_cut(primary)
    check_recovered(lab, guests, before)
    # Not asked before: our own connection may have been to the primary's server, and be back only after the proof.
    assert lab.record(victim).proofs[0].by != primary, "the primary died too late for this test"
    assert {event.by for event in lab.record(victim).events} > {primary}, "another one went on from the record"
