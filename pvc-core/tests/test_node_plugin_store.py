"""What plugins reach of the state store: records under the node's lease, and the NICs of a network."""

import pytest

from pvc_core.model.errors import InvalidRequest, Unavailable
from pvc_core.model.network import NetworkSpec
from pvc_core.model.vm import Nic, VmClaim, VmSpec
from pvc_core.node.plugin_store import PluginStore
from pvc_core.store import keys, schema
from pvc_core.store.api import CheckAbsent, Create, TransactionFailed
from pvc_core.store.documents import create
from pvc_core.store.memory import MemoryTree


@pytest.fixture
def store():
    store = MemoryTree().connect()
    schema.initialise(store)
    return store


@pytest.fixture
def access(store):
    access = PluginStore(store)
    access.bind(lambda: ())
    return access


def test_records_are_written_read_listed_and_removed(access):
    records = access.records("vxlan")
    records.put("lease/net1/10.0.0.5", {"mac": "a"})
    records.put("lease/net1/fd00::5", {"mac": "b"})
    records.put("lease/net2/10.0.0.5", {"mac": "c"})
    records.put("lease/net1/10.0.0.5", {"mac": "d"})
    assert records.get("lease/net1/10.0.0.5") == {"mac": "d"}
    assert records.below("lease/net1") == {"10.0.0.5": {"mac": "d"}, "fd00::5": {"mac": "b"}}
    assert records.below("lease") == {}
    records.delete("lease/net1")
    assert (records.get("lease/net1/10.0.0.5"), records.below("lease/net1")) == (None, {})
    assert records.get("lease/net2/10.0.0.5") == {"mac": "c"}
    records.delete("lease/net1")


def test_plugins_do_not_see_each_others_records(access):
    access.records("vxlan").put("a", 1)
    assert access.records("sriov").get("a") is None


def test_nothing_is_written_before_there_was_a_lease(store):
    records = PluginStore(store).records("vxlan")
    with pytest.raises(Unavailable, match="no lease yet"):
        records.put("a", 1)
    assert records.get("a") is None


def test_nothing_is_written_when_the_lease_is_gone(store, access):
    records = access.records("vxlan")
    records.put("a", 1)
    store.commit(Create(f"{keys.LEASE}/gone", b""))
    access.bind(lambda: (CheckAbsent(f"{keys.LEASE}/gone"),))
    for write in (lambda: records.put("a", 2), lambda: records.put("b/c", 2), lambda: records.delete("a")):
        with pytest.raises(TransactionFailed):
            write()
    assert (records.get("a"), records.get("b/c")) == (1, None)


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "..", "a/../b", "a b", "ä"])
def test_what_is_no_name_is_refused(access, name):
    with pytest.raises(InvalidRequest, match="cannot name a record"):
        access.records("vxlan").put(name, 1)


def test_what_is_too_big_is_refused(access):
    with pytest.raises(InvalidRequest, match="at most"):
        access.records("vxlan").put("a", "x" * 200_000)


def test_nics_of_a_network_are_told_with_vm_and_node(store, access):
    store.commit(create(keys.network_spec("n1"), NetworkSpec(id="n1", name="lan", driver="vxlan")))
    store.commit(Create(keys.ref("network", "n1"), b""))
    nics = (Nic(network="lan", mac="52:54:00:00:00:01"), Nic(network="dmz", mac="52:54:00:00:00:02"))
    for vm in ("v1", "v2"):
        spec = VmSpec(id=vm, name=f"web-{vm}", memory_mib=64, vcpus=1, nics=nics)
        store.commit(create(keys.vm_spec(vm), spec), Create(f"{keys.ref('network', 'n1')}/{vm}", b""))
    store.commit(create(keys.claim("v1"), VmClaim(vm="v1", node="hv2", lease=1, epoch=1)))
    found = [(nic.vm, nic.vm_name, nic.nic.mac, nic.node) for nic in access.network_nics("n1")]
    assert found == [("v1", "web-v1", "52:54:00:00:00:01", "hv2"), ("v2", "web-v2", "52:54:00:00:00:01", "")]
    assert access.network_nics("n2") == []
