"""Nodes of a real cluster: emptied for maintenance, back in service; the primary role."""

import signal
import subprocess
import time

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

LEASE_S = 10.0


@pytest.fixture(autouse=True)
def in_service(cluster):
    """Every test leaves all nodes in service."""
    yield
    for row in cluster.pvc.json("node", "list"):
        if row["scheduling"] != "ready":
            cluster.pvc("node", "ready", row["name"])


def transfers(cluster, ids):
    """Return the ids of VMs that are being transferred at this moment, by source and by target."""
    from pvc_core.model.vm import MigrationPhase
    from pvc_core.store import keys
    from pvc_core.store.documents import read_many

    sources, targets = {}, {}
    for entry in read_many(cluster.store, [keys.claim(id_) for id_ in ids]):
        record = entry.value.migration if entry else None
        if record and record.phase in (MigrationPhase.TRANSFER, MigrationPhase.ARRIVED):
            sources.setdefault(entry.value.node, []).append(entry.value.vm)
            targets.setdefault(record.target, []).append(entry.value.vm)
    return sources, targets


def test_flushed_node_is_emptied_within_the_limits_and_its_guests_come_home(cluster, guests):
    names = [guests.boot_sector(node="hv1") for _ in range(4)]
    off = guests.boot_sector(node="hv1", start=False)
    ids = {name: cluster.id(name) for name in names}
    emulators = {name: cluster.emulators("hv1", ids[name]) for name in names}
    assert all(emulators.values())
    most = 0
    begun = time.monotonic()
    with cluster.start_command("node", "flush", "hv1", stderr=subprocess.PIPE, text=True) as flush:
        while flush.poll() is None:
            sources, targets = transfers(cluster, ids.values())
            most = max([most, *map(len, sources.values())])
            assert all(len(vms) <= 2 for vms in (*sources.values(), *targets.values()))
            time.sleep(0.01)
        said = flush.stderr.read()
    assert flush.returncode == 0, said
    print(f"evacuation of 4 guests: {time.monotonic() - begun:.1f} s, {most} at once")
    assert cluster.node("hv1")["scheduling"] == "drained"
    for name in names:
        view = cluster.view(name)
        assert view["state"] == "running"
        assert view["running_on"] in ("hv2", "hv3")
        assert view["home"] == "hv1"
        assert cluster.copies(ids[name]) == {view["running_on"]: "running"}
        assert cluster.console(ids[name]).count("GUEST-UP") == 1, "it was moved live"
    assert "flushed" in cluster.refused("vm", "move", names[0], "--node", "hv1")[1]
    assert cluster.view(off)["node"] == "hv1"
    cluster.pvc("node", "ready", "hv1")
    for name in names:
        view = cluster.view(name)
        assert (view["state"], view["running_on"], view["home"]) == ("running", "hv1", None)
        assert cluster.copies(ids[name]) == {"hv1": "running"}
        assert cluster.console(ids[name]).count("GUEST-UP") == 1


def test_vm_that_fits_on_no_other_node_stays_and_the_flush_says_why(cluster, guests):
    big = {node: guests.boot_sector(node=node, memory="1000M") for node in cluster.sandbox.nodes()}
    small = guests.boot_sector(node="hv1")
    id_ = cluster.id(big["hv1"])
    emulators = cluster.emulators("hv1", id_)
    refused = cluster.pvc.run("node", "flush", "hv1")
    assert refused.returncode == 1
    assert "no node can take VM" in refused.stderr.splitlines()[-1]
    forced = cluster.pvc.run("node", "flush", "hv1", "--force")
    assert forced.returncode == 1
    assert f"VM {big['hv1']} fits nowhere and stays: " in forced.stderr
    for node in ("hv2", "hv3"):
        assert f"{node}: 1000 MiB wanted" in forced.stderr
    cluster.eventually("the small one leaves", lambda: cluster.place(small)[1] in ("hv2", "hv3"))
    problem = cluster.eventually("the node says so", lambda: cluster.node("hv1")["problems"])
    print(problem)
    assert cluster.place(big["hv1"]) == ("running", "hv1")
    assert cluster.emulators("hv1", id_) == emulators
    cluster.pvc("vm", "stop", big["hv2"], "--yes")
    cluster.eventually("it leaves when there is room", lambda: cluster.place(big["hv1"]) == ("running", "hv2"))
    assert cluster.copies(id_) == {"hv2": "running"}
    cluster.pvc("node", "ready", "hv1")
    assert cluster.view(big["hv1"])["running_on"] == "hv1"
    assert cluster.view(small)["running_on"] == "hv1"


def test_primary_role_is_moved_by_command_and_the_takeover_is_measured(cluster):
    first = cluster.primary()
    target = next(node for node in cluster.sandbox.nodes() if node != first)
    begun = time.monotonic()
    cluster.pvc("node", "primary", target)
    print(f"takeover by `pvc node primary`: {time.monotonic() - begun:.1f} s")
    assert cluster.primary() == target
    begun = time.monotonic()
    cluster.pvc("node", "secondary", target)
    new = cluster.eventually("another primary", lambda: cluster.primary() not in (None, target) and cluster.primary())
    print(f"takeover by `pvc node secondary`: {time.monotonic() - begun:.1f} s")
    assert new != target
    assert [row["name"] for row in cluster.pvc.json("node", "list") if row["primary"]] == [new]


def test_there_is_a_primary_again_soon_after_its_daemon_was_killed(cluster):
    first = cluster.primary()
    lease = cluster.lease(first)
    begun = time.monotonic()
    cluster.signal(first, signal.SIGKILL)
    cluster.eventually("a new lease", lambda: cluster.lease(first) not in (None, lease), LEASE_S + 10)
    primary = cluster.eventually("a primary", cluster.primary, LEASE_S + 10)
    took = time.monotonic() - begun
    print(f"primary {first} killed: {primary} is primary after {took:.1f} s")
    assert took < LEASE_S + 5
    cluster.pvc("vm", "list")
