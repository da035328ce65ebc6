"""Clients that died, and that an OSD takes for alive."""

import contextlib
import json
import signal
import subprocess
import sys

import pytest
import rbd

from pvc_core.plugin import DriverError, ObjectBusy
from pvc_core.testkit.lan import entered
from pvc_sandbox.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.ceph, pytest.mark.timeout(180)]

MIB = 1 << 20
VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"
# As librbd does when it opens an image.
WATCH = """
import sys, rados
conf, pool, header = sys.argv[1:]
cluster = rados.Rados(name="client.admin", conffile=conf)
cluster.connect()
ioctx = cluster.open_ioctx(pool)
print(cluster.get_addrs(), flush=True)
sys.stdin.readline()
ioctx.watch(header, lambda *_: None)
"""


@contextlib.contextmanager
def slow_copy(ceph, primary):
    """Keep one OSD from confirming what others pass to it."""
    nodes = {number: f"node{number + 1}" for number in range(3) if number != primary}
    number, node = next(iter(nodes.items()))
    ceph.command("osd set", key="nodown")
    ceph.host(node).signal_service(f"ceph-osd@{number}", signal.SIGSTOP)
    try:
        yield
    finally:
        ceph.host(node).signal_service(f"ceph-osd@{number}", signal.SIGCONT)
        ceph.command("osd unset", key="nodown")


def watchers(site, name):
    """Return the clients that have an image open, beside the one that asks."""
    with site.image(name) as image:
        return {each["addr"] for each in image.watchers_list()} - {site.ceph.cluster.get_addrs()}


@pytest.fixture
def stale(site, ceph):
    """Return a volume with the watch of a client that died while it was written, and this client's address."""
    site.driver().volume_create(site.ref("web1"), 4 * MIB, "")
    with site.image("web1") as image:
        header = f"rbd_header.{image.id()}"
    primary = ceph.command("osd map", pool=site.pool.name, object=header)["acting_primary"]

    def being_watched():
        _, body, _ = ceph.cluster.osd_command(primary, json.dumps({"prefix": "dump_ops_in_flight"}), b"")
        return any(header in op["description"] and " watch " in op["description"] for op in json.loads(body)["ops"])

    with entered(ceph.namespace("node1")):
        client = subprocess.Popen(
            [sys.executable, "-c", WATCH, str(ceph.conf), site.pool.name, header],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        address = client.stdout.readline().strip()
        with slow_copy(ceph, primary):
            client.stdin.write("\n")
            client.stdin.flush()
            wait_until("the watch is being written", being_watched, deadline_s=30)
            client.kill()
            client.wait()
    finally:
        client.kill()
        client.communicate()
    assert watchers(site, "web1") == {address}
    return address


def test_a_volume_whose_dead_client_is_not_blocked_is_believed_to_be_open(site, stale):
    with pytest.raises(ObjectBusy, match=f"volume 'web1' is open by a client at {stale}"):
        site.driver().volume_delete(site.ref("web1"))


def test_a_volume_is_deleted_though_an_osd_takes_a_dead_client_for_alive(site, ceph, stale):
    ceph.command("osd blocklist", blocklistop="add", addr=stale)
    ceph.cluster.wait_for_latest_osdmap()
    assert watchers(site, "web1") == {stale}
    with ceph.cluster.open_ioctx(site.pool.name) as ioctx, pytest.raises(rbd.ImageBusy):
        rbd.RBD().remove(ioctx, "web1")
    assert site.driver().volume_delete(site.ref("web1"))
    assert site.driver().volume_list(site.pool) == []


def test_a_vm_gets_its_disk_though_an_osd_takes_a_dead_client_for_alive(site, ceph, stale):
    assert site.driver("node2").disk_attach(site.ref("web1"), VM, 1, incoming=False)
    assert stale in ceph.blocked()
    assert watchers(site, "web1") == set()


def test_one_that_may_not_have_the_group_peer_says_what_to_do(site, ceph, stale):
    key = ceph.command(
        "auth get-or-create",
        entity="client.limited",
        caps=["mon", 'profile rbd, allow command "osd blocklist"', "osd", "profile rbd"],
    )[0]["key"]
    keyring = site.directory / "limited.keyring"
    keyring.write_text(f"[client.limited]\nkey = {key}\n")
    driver = site.driver("node2", user="limited", keyring=str(keyring))
    with pytest.raises(
        DriverError, match=r"still open by clients that were blocked: .*ceph pg repeer \d+\.\d+ \(.*refused"
    ):
        driver.disk_attach(site.ref("web1"), VM, 1, incoming=False)
