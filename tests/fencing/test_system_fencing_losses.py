"""Nodes that are lost in every way: their guests run elsewhere, once, and come home.  And nodes that are left alone."""

import signal

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

LONG = 50
"""Heartbeats in more than 8 s: a node that is not fenced by then is left alone."""
LOSSES = {
    "power cut": lambda lab, node: lab.sandbox.power_cut(node),
    "hang": lambda lab, node: lab.sandbox.freeze(node),
    "network cut": lambda lab, node: lab.sandbox.cut_link(node),
    "daemon killed": lambda lab, node: lab.kill_daemon_for_good(node),
}
CASES = [
    ("power cut", "another node"),
    ("network cut", "another node"),
    ("daemon killed", "another node"),
    ("power cut", "the primary"),
    ("network cut", "the primary"),
]


def lose(lab, loss, victim):
    """Lose a node with a guest on it; return the guest, and its lives, when it executes elsewhere."""
    guest, lease = lab.guest(victim), lab.lease(victim)
    before = guest.lives()
    LOSSES[loss](lab, victim)
    new = lab.moved(guest, away_from=victim)
    record = lab.until(victim, "recovered", "returned")
    assert record.lease == lease
    assert [proof.kind for proof in record.proofs] == ["power-off-confirmed"]
    assert [(vm.name, vm.outcome) for vm in record.vms] == [("witness", "freed")]
    lives = guest.lives()  # raises where two copies wrote at the same time
    assert len(lives) == len(before) + 1
    assert lives[-2].boot == before[-1].boot, "it began anew after what it had done on the lost node, and only once"
    assert lives[-1].hosts == (new,)
    return guest, lives


def check_return(lab, guest, lives, home):
    """Check that a guest comes home from where it was started anew, and that nothing else of it ever executes."""
    lab.eventually("the guest is home", lambda: lab.cluster.place(guest.name) == ("running", home))
    lab.eventually("it writes there", lambda: guest.beats()[-1].host == home)
    after = guest.lives()
    assert after[:-1] == lives[:-1]
    assert (after[-1].boot, after[-1].hosts) == (lives[-1].boot, (*lives[-1].hosts, home)), "by live migration"


@pytest.mark.parametrize(("loss", "whose"), CASES, ids=lambda word: word.replace(" ", "-"))
def test_guest_of_a_lost_node_runs_elsewhere_and_never_twice(lab3, loss, whose):
    lab, primary = lab3, lab3.primary()
    victim = primary if whose == "the primary" else lab.others(primary)[0]
    guest, lives = lose(lab, loss, victim)
    assert lab.sandbox.host(victim).running is False, "it was switched off, whatever state it was in"
    assert lab.cluster.out_of_service(victim), "it waits for its operator"
    lab.bring_back(victim)
    assert "it is back and clean" in " ".join(event.message for event in lab.record(victim).events)
    check_return(lab, guest, lives, victim)


def test_node_is_switched_on_and_put_into_service_where_that_is_wanted(lab3):
    lab = lab3
    victim = lab.others(lab.primary())[0]
    lab.pvc("cluster", "settings", "--power-on-after-fence", "--return-after-fence")
    guest, lives = lose(lab, "hang", victim)
    lab.until(victim, "returned")
    check_return(lab, guest, lives, victim)
    assert not lab.cluster.out_of_service(victim)
    lab.pvc("cluster", "settings", "--no-power-on-after-fence", "--no-return-after-fence")


def test_node_whose_daemon_is_back_soon_or_was_stopped_on_purpose_or_in_maintenance_is_not_fenced(lab3):
    lab = lab3
    killed = lab.primary()
    stopped, maintained = lab.others(killed)
    guests = [lab.guest(killed), lab.guest(stopped, "second"), lab.guest(maintained, "third")]
    lease, losses, boots = lab.lease(killed), lab.losses(), [[life.boot for life in g.lives()] for g in guests]
    lab.pvc("node", "maintenance", maintained, "on")
    lab.sandbox.cut_link(maintained)
    lab.sandbox.host(stopped).stop_service("pvcnoded")
    lab.cluster.signal(killed, signal.SIGKILL)
    lab.eventually("the killed daemon is back", lambda: lab.lease(killed) > lease)
    lab.eventually("the cut-off node is lost", lambda: not lab.lease(maintained))
    lab.go_on(guests, LONG)
    assert lab.pvc.json("fence", "status", stopped)["left_alone"] == "its daemon was stopped on purpose"
    assert lab.pvc.json("fence", "status", maintained)["left_alone"] == "it is in maintenance"
    lab.bring_back(stopped, maintained)
    lab.pvc("node", "maintenance", maintained, "off")
    assert lab.losses() == losses
    assert [[life.boot for life in guest.lives()] for guest in guests] == boots
