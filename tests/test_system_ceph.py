"""Real guests on Ceph: their disks, live migration, and what follows the loss of a node."""

import signal
import subprocess
import time

import pytest

pytestmark = [pytest.mark.real, pytest.mark.ceph, pytest.mark.timeout(240)]

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


def test_volume_grows_and_is_kept_and_another_is_plugged_in_under_a_running_guest(ceph_cluster, ceph_guests):
    name = ceph_guests.linux(node="hv1")
    id_, path = ceph_cluster.id(name), f"systemtest/{name}"
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 2)
    ceph_cluster.pvc("storage", "volume", "resize", path, "8M")
    told = ceph_cluster.sandbox.exec("hv1", ["virsh", "domblkinfo", id_, "vda"]).check().stdout
    assert f"Capacity:       {8 * MIB}" in told
    ceph_cluster.pvc("storage", "snapshot", "create", path, "s1")
    copy, more = ceph_guests.name(), ceph_guests.with_volume(ceph_guests.name())
    ceph_cluster.pvc("storage", "volume", "clone", path, copy, "--snapshot", "s1")
    ceph_guests.with_volume(copy)
    ceph_cluster.pvc("storage", "volume", "add", more, "4M")
    ceph_cluster.pvc("vm", "disk", "add", name, more, "--bus", "scsi")
    xml = ceph_cluster.sandbox.exec("hv1", ["virsh", "dumpxml", id_]).check().stdout
    assert "model='virtio-scsi'" in xml
    assert xml.count("discard='unmap'") == 2
    ceph_cluster.pvc("vm", "move", name, "--node", "hv2")
    ceph_cluster.pvc("vm", "disk", "remove", name, more)
    xml = ceph_cluster.sandbox.exec("hv2", ["virsh", "dumpxml", id_]).check().stdout
    assert xml.count("discard='unmap'") == 1
    last = len(beats(ceph_cluster, id_))
    ceph_cluster.eventually("it goes on counting", lambda: len(beats(ceph_cluster, id_)) >= last + 2)
    assert "DISK-ERROR" not in ceph_cluster.console(id_)


def test_guest_of_a_node_without_power_goes_on_elsewhere_at_once(ceph_cluster, ceph_guests):
    name = ceph_guests.linux(node="hv3")
    id_ = ceph_cluster.id(name)
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 3)
    ceph_cluster.sandbox.power_cut("hv3")
    ceph_cluster.eventually(
        "it runs elsewhere",
        lambda: ceph_cluster.place(name)[1] in ("hv1", "hv2") and ceph_cluster.place(name)[0] == "running",
        120,
    )
    last = max(beats(ceph_cluster, id_))
    ceph_cluster.eventually("it counts on from where it was", lambda: max(beats(ceph_cluster, id_)) > last)
    assert "DISK-ERROR" not in ceph_cluster.console(id_)
    ceph_cluster.sandbox.power_on("hv3")
    ceph_cluster.sandbox.wait_ready(["hv3"])
    ceph_cluster.eventually(
        "it may be put into service", lambda: not ceph_cluster.pvc.run("node", "ready", "hv3").returncode
    )


def test_node_lives_on_while_ceph_answers_nothing(ceph_cluster, ceph_guests):
    """All OSDs and monitors hang: no node loses its lease, guests stay, and everything goes on afterwards."""
    name = ceph_guests.linux(node="hv1")
    id_ = ceph_cluster.id(name)
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 3)
    leases = {node: ceph_cluster.lease(node) for node in ceph_cluster.sandbox.nodes()}
    hosts = [ceph_cluster.sandbox.host(node) for node in ceph_cluster.sandbox.nodes()]
    daemons = [
        (host, service)
        for host in hosts
        for service in host.services()
        if service.startswith(("ceph-osd@", "ceph-mon@"))
    ]
    for host, service in daemons:
        host.signal_service(service, signal.SIGSTOP)
    try:
        ceph_cluster.eventually(
            "every node says so",
            lambda: all(
                any(c["type"] == "Ceph" and not c["ok"] for c in ceph_cluster.node_info(node)["conditions"])
                for node in leases
            ),
            90,
        )
        new = ceph_guests.with_volume(ceph_guests.name())
        added = ceph_cluster.pvc.run("storage", "volume", "add", new, "1M", "--timeout", "45")
        assert added.returncode == 1
        assert "monitor" in added.stderr
        assert {node: ceph_cluster.lease(node) for node in leases} == leases
        assert ceph_cluster.place(name) == ("running", "hv1")
        assert ceph_cluster.pvc.json("cluster", "status")["primary"]
    finally:
        for host, service in daemons:
            host.signal_service(service, signal.SIGCONT)
    last = len(beats(ceph_cluster, id_))
    ceph_cluster.eventually("the guest goes on", lambda: len(beats(ceph_cluster, id_)) > last)
    ceph_cluster.eventually("the volume is there", lambda: volume(ceph_cluster, new)["state"] == "ready", 120)
    assert {node: ceph_cluster.lease(node) for node in leases} == leases
    assert "DISK-ERROR" not in ceph_cluster.console(id_)


def volume(cluster, path):
    return cluster.pvc.json("storage", "volume", "info", path)


def test_guest_whose_emulator_was_killed_writes_again_at_once(ceph_cluster, ceph_guests):
    """Ceph believes for half a minute that the dead emulator lives, unless it is told."""
    name = ceph_guests.linux(node="hv1")
    id_ = ceph_cluster.id(name)
    ceph_cluster.eventually("the guest counts", lambda: len(beats(ceph_cluster, id_)) >= 3)
    ceph_cluster.kill_emulator("hv1", id_)
    ceph_cluster.eventually("it boots again", lambda: ceph_cluster.console(id_).count("GUEST-UP") == 2)
    booted = time.monotonic()
    last = max(beats(ceph_cluster, id_))
    ceph_cluster.eventually("it writes", lambda: max(beats(ceph_cluster, id_)) > last + 1)
    assert time.monotonic() - booted < 20


def test_locks_of_a_program_outside_are_flushed(ceph_cluster, ceph_guests):
    name = ceph_guests.linux(node="hv1", start=False)
    path = f"systemtest/{name}"
    argv = ["stdbuf", "-oL", "qemu-io", "-f", "raw", f"rbd:{path}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(ceph_cluster.sandbox.host("hv3").command(argv), **pipes) as stranger:
        stranger.stdin.write("write 0 512\n")
        stranger.stdin.flush()
        ceph_cluster.eventually("it has written", lambda: "wrote 512" in stranger.stdout.readline())
        assert "1 lock broken" in ceph_cluster.pvc("vm", "flush-locks", name, "--yes")
        assert "0 locks broken" in ceph_cluster.pvc("vm", "flush-locks", name, "--yes")
        said, _ = stranger.communicate("write 0 512\nquit\n")
        assert "write failed" in said
    ceph_cluster.pvc("vm", "start", name)
    assert "holds the claim" in ceph_cluster.refused("vm", "flush-locks", name, "--yes")[1]
