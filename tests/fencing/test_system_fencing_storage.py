"""Nodes that nobody can switch off: Ceph keeps them from writing, and that is the proof.

The BMC of a lost node has no power.  Its guests live on, and write.
"""

import json
import os
import signal

import pytest

from pvc_core.testkit.lan import entered

pytestmark = [pytest.mark.real, pytest.mark.ceph, pytest.mark.timeout(300)]


@pytest.fixture
def ceph(ceph_lab):
    """Return a function that asks Ceph's monitors, as ``ceph`` does, from outside the nodes."""
    from pvc_core.plugin.process import run
    from pvc_sandbox.ceph import client_conf

    def ask(*words):
        with entered(ceph_lab.sandbox.layout.switch):
            done = run(["ceph", "-c", str(client_conf(ceph_lab.sandbox.layout)), "-f", "json", *words], deadline_s=60)
        return json.JSONDecoder().raw_decode(done.check().stdout.lstrip())[0]

    return ask


def blocked(ceph):
    return {entry["addr"] for entry in ceph("osd", "blocklist", "ls")}


@pytest.mark.parametrize("loss", ["daemon", "cable"])
def test_guest_that_lives_on_writes_nothing_once_it_runs_elsewhere(ceph_lab, ceph, loss):
    node = ceph_lab.others(ceph_lab.primary())[0]
    host = ceph_lab.sandbox.host(node)
    guest = ceph_lab.guest(node)
    ceph_lab.goes_on(guest, 5)
    before = len(guest.beats())
    ceph_lab.sandbox.bmc(node).power_cut()
    if loss == "daemon":
        ceph_lab.kill_daemon_for_good(node)
    else:
        ceph_lab.sandbox.cut_link(node, management=True)

    other = ceph_lab.moved(guest, away_from=node)
    record = ceph_lab.record(node)
    assert [proof.kind for proof in record.proofs] == ["storage-blocked"]
    assert f"{host.address}:0/0" in blocked(ceph)
    ceph_lab.goes_on(guest, 20)
    # The first copy is still there.
    assert ceph_lab.cluster.emulators(node, guest.id)
    since = [beat.host for beat in guest.beats(after=before)]
    assert set(since[since.index(other) :]) == {other}

    if loss == "daemon":
        assert {osd["status"] for osd in ceph("osd", "tree")["nodes"] if osd["type"] == "osd"} == {"up"}
        os.kill(host.pid, signal.SIGCONT)
    else:
        ceph_lab.sandbox.heal_link(node)
    ceph_lab.until(node, "returned", within_s=120)
    assert not ceph_lab.cluster.emulators(node, guest.id)
    ceph_lab.eventually("its storage is open to it", lambda: f"{host.address}:0/0" not in blocked(ceph))
    ceph_lab.bring_back(node)
    ceph_lab.eventually("it is back where it was", lambda: ceph_lab.cluster.place(guest.name) == ("running", node))
    ceph_lab.goes_on(guest, 5)
    assert [life.hosts for life in guest.lives()][-1] == (other, node)
