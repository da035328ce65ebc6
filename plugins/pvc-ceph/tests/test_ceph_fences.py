"""Keeping a node from writing: whom it hits, whom it must not hit, and when it is proven."""

import signal
import subprocess
import sys
import uuid

import pytest

from pvc_ceph.worker.placement import group, one_in_each
from pvc_core.model.task import Task
from pvc_core.plugin import DriverError, NotReady
from pvc_core.testkit.lan import entered
from pvc_sandbox.waiting import wait_until

MIB = 1 << 20
VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"

# Writes for ever, and says so; then says with what that ended.
WRITER = """
import sys, rados, rbd
cluster = rados.Rados(name="client.admin", conffile=sys.argv[1])
cluster.connect()
image = rbd.Image(cluster.open_ioctx(sys.argv[2]), sys.argv[3])
number = 0
while True:
    number += 1
    try:
        image.write(b"%016d" % number, 0)
        image.flush()
    except rbd.Error as error:
        print("refused", type(error).__name__, flush=True)
        break
    print("wrote", number, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writer(site, ceph):
    """Return a function that starts a program on a node that writes to a volume."""
    started = []

    def start(node, name):
        with entered(ceph.namespace(node)):
            process = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(ceph.conf), site.pool.name, name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        started.append(process)
        assert process.stdout.readline().startswith("wrote")
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.real
@pytest.mark.ceph
def test_writer_on_a_blocked_node_is_refused_and_nothing_of_it_lands(site, ceph, writer):
    driver = site.driver("node1")
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    identity = site.driver("node3").node_identity()
    assert identity["addresses"] == ceph.address("node3")
    process = writer("node3", "web1")
    result = driver.node_block("node3", identity, [site.ref("web1")], 7)
    assert result.blocked
    assert f"{ceph.address('node3')}:0/0" in result.evidence
    assert driver.disk_attach(site.ref("web1"), VM, 1, incoming=False)
    site.write("web1", b"the new copy's.!")
    said = "wrote"
    while said.startswith("wrote"):
        said = process.stdout.readline()
    assert said.strip() == "refused ConnectionShutdown"
    assert site.read("web1", 0, 16) == b"the new copy's.!"


@pytest.mark.real
@pytest.mark.ceph
def test_writer_that_hung_while_its_node_was_blocked_writes_nothing_when_it_wakes_up(site, ceph, writer):
    driver = site.driver("node1")
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    identity = site.driver("node3").node_identity()
    process = writer("node3", "web1")
    process.send_signal(signal.SIGSTOP)
    assert driver.node_block("node3", identity, [site.ref("web1")], 7).blocked
    driver.disk_attach(site.ref("web1"), VM, 1, incoming=False)
    site.write("web1", b"the new copy's.!")
    process.send_signal(signal.SIGCONT)
    said = "wrote"
    while said.startswith("wrote"):
        said = process.stdout.readline()
    assert said.strip() == "refused ConnectionShutdown"
    assert site.read("web1", 0, 16) == b"the new copy's.!"


@pytest.mark.real
@pytest.mark.ceph
def test_osds_and_clients_of_other_nodes_are_not_hit(site, ceph):
    first, second = site.driver("node1"), site.driver("node2")
    first.volume_create(site.ref("web1"), 4 * MIB, "")
    identity = site.driver("node3").node_identity()
    assert first.node_block("node3", identity, [site.ref("web1")], 7).blocked
    assert second.volume_create(site.ref("web2"), 4 * MIB, "")
    assert first.volume_info(site.ref("web1")).size_bytes == 4 * MIB
    assert ceph.command("status")["osdmap"]["num_up_osds"] == 3
    assert ceph.blocked() == {f"{ceph.address('node3')}:0/0"}
    with pytest.raises(NotReady, match="Ceph has blocked this node's address"):
        site.driver("node3").node_identity()
    assert first.node_unblock("node3", identity, 7)
    assert ceph.blocked() == set()
    assert site.driver("node3").node_identity() == identity


@pytest.fixture
def lone_pool(ceph):
    """Return a pool with a single copy, for what is remembered of nodes, and the number of the OSD that has it."""
    name = f"lone{uuid.uuid4().hex[:8]}"
    ceph.command("osd pool create", pool=name, pg_num=1, size=1, autoscale_mode="off")
    yield name, ceph.command("osd map", pool=name, object="any")["acting_primary"]
    ceph.command("osd pool delete", pool=name, pool2=name, yes_i_really_really_mean_it=True)


@pytest.mark.real
@pytest.mark.ceph
def test_an_osd_that_has_not_heard_of_the_block_is_no_proof(site, ceph, lone_pool):
    """It would still take what the blocked node writes."""
    memory, its_osd = lone_pool
    driver = site.driver("node1", state_pool=memory)
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    identity = site.driver("node3", state_pool=memory).node_identity()
    services = [(ceph.host(node), name) for node in ("node1", "node2", "node3") for name in ceph.host(node).services()]
    host, name = next(
        (host, name) for host, name in services if name.startswith("ceph-osd@") and name != f"ceph-osd@{its_osd}"
    )
    ceph.command("osd set", key="nodown")
    host.signal_service(name, signal.SIGSTOP)
    try:
        result = driver.node_block("node3", identity, [site.ref("web1")], 7)
        assert not result.blocked
        assert f"of 4 placement groups of pool {site.pool.name} have not confirmed" in result.evidence
    finally:
        host.signal_service(name, signal.SIGCONT)
        ceph.command("osd unset", key="nodown")
    wait_until(
        "it is proven", lambda: driver.node_block("node3", identity, [site.ref("web1")], 7).blocked, deadline_s=60
    )


@pytest.mark.real
@pytest.mark.ceph
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fsid": "another"}, "reported the Ceph cluster another"),
        ({"addresses": ""}, "did not report under which address"),
        ({"addresses": "10.77.0.1"}, "is our own address"),
    ],
)
def test_what_cannot_be_the_lost_nodes_is_not_blocked(site, ceph, change, said):
    driver = site.driver("node1")
    own = ceph.address("node1")
    identity = {**site.driver("node3").node_identity(), **{k: v.replace("10.77.0.1", own) for k, v in change.items()}}
    with pytest.raises(DriverError, match=said):
        driver.node_block("node3", identity, [], 7)
    assert ceph.blocked() == set()


@pytest.mark.real
@pytest.mark.ceph
def test_an_address_that_another_node_has_too_is_not_blocked(site, ceph):
    driver = site.driver("node1")
    identity = site.driver("node3").node_identity()
    with entered(ceph.namespace("node3")):
        twin = site.driver("node3-twin", host="node3")
        assert twin.node_identity() == identity
    with pytest.raises(DriverError, match=r"node node3-twin has the address .* of node node3 too"):
        driver.node_block("node3", identity, [], 7)
    assert ceph.blocked() == set()


@pytest.mark.real
@pytest.mark.ceph
def test_the_block_of_a_later_loss_survives_an_opening_that_hung(site, ceph, monkeypatch):
    """The opening has been recorded, and is carried out after the next block."""
    from pvc_ceph.protocol import Open
    from pvc_ceph.worker import clients, fences
    from pvc_ceph.worker.ceph import Cluster

    driver = site.driver("node1")
    identity = site.driver("node3").node_identity()
    assert driver.node_block("node3", identity, [], 7).blocked
    with entered(ceph.namespace("node2")):
        cluster = Cluster(Open(conf=str(ceph.conf), user="admin", state_pool=site.pool.name, node="node2"))
        assert cluster.connection.get_fsid() == identity["fsid"]
    unblock = clients.unblock

    def late(*arguments):
        monkeypatch.setattr(clients, "unblock", unblock)
        assert driver.node_block("node3", identity, [], 8).blocked
        unblock(*arguments)

    monkeypatch.setattr(clients, "unblock", late)
    fences.unblock(cluster, "node3", identity, 7)
    cluster.close()
    assert ceph.blocked() == {f"{ceph.address('node3')}:0/0"}


@pytest.mark.real
@pytest.mark.ceph
def test_a_block_that_hung_until_the_node_was_open_again_is_undone(site, ceph, monkeypatch):
    from pvc_ceph.protocol import Open
    from pvc_ceph.worker import clients, fences
    from pvc_ceph.worker.ceph import Cluster

    driver = site.driver("node1")
    identity = site.driver("node3").node_identity()
    with entered(ceph.namespace("node2")):
        cluster = Cluster(Open(conf=str(ceph.conf), user="admin", state_pool=site.pool.name, node="node2"))
        assert cluster.connection.get_fsid() == identity["fsid"]
    block = clients.block

    def late(*arguments):
        monkeypatch.setattr(clients, "block", block)
        assert driver.node_unblock("node3", identity, 7)
        block(*arguments)

    monkeypatch.setattr(clients, "block", late)
    result = fences.block(cluster, "node3", identity, [], 7, 20.0)
    cluster.close()
    assert not result.blocked
    assert "meanwhile" in result.evidence
    assert ceph.blocked() == set()


@pytest.mark.real
@pytest.mark.ceph
def test_placement_groups_are_those_that_ceph_says(site, ceph):
    for name in ("x", "rbd_data.1", "rbd_header.10a6b8b4567", "twelve bytes", "a" * 40, "ü"):
        told = ceph.command("osd map", pool=site.pool.name, object=name)
        assert group(name, 4) == int(told["pgid"].partition(".")[2], 16)


@pytest.mark.parametrize("groups", [1, 2, 3, 8, 12, 100, 128])
def test_every_placement_group_has_an_object(groups):
    names = one_in_each(groups)
    assert [group(name, groups) for name in names] == list(range(groups))


@pytest.mark.real
@pytest.mark.ceph
def test_a_node_that_is_kept_from_writing_is_let_in_by_force_only(site, ceph):
    driver = site.driver("node1")
    identity = site.driver("node3").node_identity()
    assert driver.node_block("node3", identity, [], 7).blocked
    blocked = driver.queries()["ceph.blocked"]({})
    host = f"{ceph.address('node3')}:0/0"
    assert [(each.address, each.node, each.lease) for each in blocked] == [(host, "node3", 7)]
    runner = driver.task_runners()["ceph.unblock"]

    def unblock(**arguments):
        return runner(Task(id="t", kind="ceph.unblock", node="node1", arguments=arguments), lambda _done: False)

    with pytest.raises(DriverError, match="node node3 is kept from writing since it lost lease 7"):
        unblock(node="node3", force=False)
    assert ceph.blocked() == {host}
    assert unblock(node="node3", force=True) == {"opened": host}
    assert ceph.blocked() == set()
    assert unblock(node="node3", force=False) == {"opened": ""}
    with pytest.raises(DriverError, match="no node 'node9' has ever reached this Ceph cluster"):
        unblock(node="node9", force=False)
