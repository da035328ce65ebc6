"""Real guests on Ceph: their disks, live migration, and what follows the loss of a node."""

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

MIB = 1 << 20


def beats(cluster, id_):
    return [tick.number for tick in cluster.ticks(id_)]


def test_guest_on_ceph_counts_on_its_disk_and_moves_live(ceph_cluster, ceph_guests):
    name = ceph_guests.linux(node="hv1")
    id_ = ceph_cluster.id(name)
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 3)
    xml = ceph_cluster.sandbox.exec("hv1", ["virsh", "dumpxml", id_]).check().stdout
    assert "protocol='rbd'" in xml
    assert "discard='unmap'" in xml
    ceph_cluster.pvc("vm", "move", name, "--node", "hv2")
    assert ceph_cluster.place(name) == ("running", "hv2")
    before = len(beats(ceph_cluster, id_))
    ceph_cluster.eventually("it goes on counting", lambda: len(beats(ceph_cluster, id_)) >= before + 3)
    assert len(set(beats(ceph_cluster, id_))) == len(beats(ceph_cluster, id_))  # it was not started anew
    assert "DISK-ERROR" not in ceph_cluster.console(id_)


def test_guest_of_a_node_without_power_goes_on_elsewhere_at_once(ceph_cluster, ceph_guests):
    name = ceph_guests.linux(node="hv3")
    id_ = ceph_cluster.id(name)
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 3)
    ceph_cluster.sandbox.power_cut("hv3")
    ceph_cluster.eventually(
        "it runs elsewhere", lambda: ceph_cluster.place(name)[1] in ("hv1", "hv2") and ceph_cluster.place(name)[0] == "running", 120
    )
    last = max(beats(ceph_cluster, id_))
    ceph_cluster.eventually("it counts on from where it was", lambda: max(beats(ceph_cluster, id_)) > last)
    assert "DISK-ERROR" not in ceph_cluster.console(id_)
    ceph_cluster.sandbox.power_on("hv3")
    ceph_cluster.sandbox.wait_ready(["hv3"])
