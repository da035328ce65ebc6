"""A Ceph cluster that is not PVC's, used with the rights that the README gives."""

import re
import shlex
from pathlib import Path

import pytest
from msgspec.structs import replace

from pvc_core.plugin import AuthFailed

pytestmark = [pytest.mark.real, pytest.mark.ceph, pytest.mark.timeout(180)]

MIB = 1 << 20
README = Path(__file__).parent.parent / "README.md"
VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"


def never(_done):
    return False


@pytest.fixture
def rights():
    """Return the rights of the README's user, as ``auth get-or-create`` takes them."""
    command = re.search(r"ceph auth get-or-create client\.pvc (.*?)\n```", README.read_text(), re.DOTALL)
    return shlex.split(command[1].replace("\\\n", ""))


@pytest.fixture
def user(site, ceph, rights):
    """Make a user; return the settings with which the driver is one."""
    name = f"u{site.pool.name}"
    key = ceph.command("auth get-or-create", entity=f"client.{name}", caps=rights)[0]["key"]
    keyring = site.directory / "keyring"
    keyring.write_text(f"[client.{name}]\nkey = {key}\n")
    yield {"user": name, "vm_user": name, "keyring": str(keyring), "external": True}
    ceph.command("auth del", entity=f"client.{name}")


@pytest.fixture
def adopted(tmp_path, new_site, ceph):
    """Return the site of a pool that was made by others."""
    made = new_site(tmp_path)
    ceph.command("osd pool create", pool=made.pool.name, pg_num=4, autoscale_mode="off")
    ceph.command("osd pool application enable", pool=made.pool.name, app="rbd")
    made.pool = replace(made.pool, parameters={"adopt": True})
    yield made
    made.close()


@pytest.fixture
def site(adopted):
    return adopted


def test_volumes_and_disks_of_a_pool_that_others_made(site, user):
    driver = site.driver(**user)
    driver.storage_preflight()
    driver.pool_ensure(site.pool)
    assert driver.pool_usage(site.pool).free_bytes > 0
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    site.write("web1", b"contents")
    driver.snapshot_create(site.ref("web1"), "s1")
    driver.volume_clone(site.ref("web1"), "s1", site.ref("web2"), False)
    driver.volume_clone(site.ref("web1"), "", site.ref("web3"), True)
    raw = site.directory / "raw"
    driver.volume_export(site.ref("web2"), "", str(raw), "raw", never)
    assert raw.read_bytes()[:8] == b"contents"
    driver.volume_import(site.ref("web4"), str(raw), "raw", never)
    source = driver.disk_attach(site.ref("web1"), VM, 1, incoming=False)
    assert user["user"] in repr(source)
    assert [each.volume for each in driver.disk_attachments()] == ["web1"]
    assert driver.disk_detach(site.ref("web1"), VM)
    for name in ("web4", "web3", "web2", "web1"):
        driver.volume_delete(site.ref(name))
    assert driver.volume_list(site.pool) == []


def test_what_is_told_of_the_cluster(site, user, ceph):
    driver = site.driver(**user)
    assert [each for each in driver.health_checks() if not each.ok] == []
    told = driver.queries()
    assert [each.name for each in told["ceph.status"]({}).monitors] == ["hv1", "hv2", "hv3"]
    assert site.pool.name in [each.name for each in told["ceph.util"]({}).pools]
    assert told["ceph.blocked"]({}) == []


def test_rights_that_are_missing_are_told(site, user, ceph):
    ceph.command("auth caps", entity=f"client.{user['user']}", caps=["mon", "profile rbd", "osd", "profile rbd"])
    [told] = site.driver(**user).health_checks()
    assert (told.type, told.ok, told.reason) == ("Ceph", False, "Refused")
    assert "access denied" in told.message


def test_a_lost_node_is_kept_from_writing(site, user, ceph):
    first, third = (site.driver(node, **user) for node in ("node1", "node3"))
    first.pool_ensure(site.pool)
    first.volume_create(site.ref("web1"), 4 * MIB, "")
    identity = third.node_identity()
    assert first.node_block("node3", identity, [site.ref("web1")], 7).blocked
    assert ceph.blocked() == {f"{ceph.address('node3')}:0/0"}
    assert first.node_unblock("node3", identity, 7)
    assert ceph.blocked() == set()


def test_jobs_on_osds_and_new_pools_are_refused_with_the_reason(site, user):
    driver = site.driver(**user)
    with pytest.raises(AuthFailed, match="refused 'osd crush rule create-replicated': access denied"):
        driver.pool_ensure(replace(site.pool, parameters={"pgs": 4, "pool": f"{site.pool.name}-new"}))
