"""Defining VMs."""

import re
import threading

import msgspec
import pytest

from pvc_core.model.errors import AlreadyExists, Conflict, InUse, InvalidRequest, NoNodeFits, NotFound
from pvc_core.ops.message import decode_request
from pvc_core.ops.network import NetworkQuery, network_remove
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import DiskDefinition, NicDefinition, VmDefine
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_views import VmQuery, vm_dump, vm_info
from pvc_core.ops.volume import VolumeQuery, volume_remove
from pvc_core.store import keys
from pvc_core.store.api import Failure, TransactionFailed
from pvc_core.store.memory import Moment


def web(**changes):
    return VmDefine(**({"name": "web", "memory": "1G", "vcpus": 2} | changes))


DISK = DiskDefinition(pool="ssd", volume="web")
NIC = NicDefinition(network="lan")


def test_defined_vm_is_stopped_and_has_no_node(equipped):
    view = vm_define(equipped.ops, web(disks=(DISK,), nics=(NIC,), tags=("prod",)))
    assert (view.state, view.power, view.node, view.settled) == ("stopped", "stopped", None, True)
    assert (view.memory_mib, view.vcpus, view.tags) == (1024, 2, ("prod",))
    assert (view.networks, view.volumes) == (("lan",), ("ssd/web",))
    assert equipped.store.get(keys.name("vm", "web")).value.decode() == view.id


def test_nic_without_mac_gets_one_of_its_own(equipped):
    one = vm_info(equipped.ops, VmQuery(vm=equipped.define("a", nics=(NIC, NIC)))).spec
    macs = [nic.mac for nic in one.nics]
    assert all(re.fullmatch("52:54:00(:[0-9a-f]{2}){3}", mac) for mac in macs)
    assert len(set(macs)) == 2
    assert {equipped.store.get(keys.name("mac", mac)).value.decode() for mac in macs} == {one.id}


def test_mac_that_another_vm_has_is_not_drawn(equipped):
    drawn = iter([bytes([0, 0, 1])] * 8 + [bytes([0, 0, n]) for n in range(1, 9)])
    ops = equipped.ops._replace(random_bytes=lambda _: next(drawn))
    equipped.define("a", nics=(NicDefinition(network="lan", mac="52:54:00:00:00:01"),))
    view = vm_define(ops, web(nics=(NIC,)))
    assert equipped.spec(view.id).nics[0].mac == "52:54:00:00:00:02"


def test_broken_source_of_chance_ends_with_an_error(equipped):
    ops = equipped.ops._replace(random_bytes=bytes)
    equipped.define("a", nics=(NicDefinition(network="lan", mac="52:54:00:00:00:00"),))
    with pytest.raises(Conflict, match="no free MAC address"):
        vm_define(ops, web(nics=(NIC,)))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": "a b"}, InvalidRequest, "VM name 'a b' is not a valid name"),
        ({"name": "a/b"}, InvalidRequest, "is not a valid name"),
        ({"name": "a\n"}, InvalidRequest, r"VM name 'a\n' is not a valid name"),
        ({"id": "1234"}, InvalidRequest, "'1234' is not a UUID"),
        ({"memory": "lots"}, InvalidRequest, "memory 'lots' is not a size"),
        ({"memory": 0}, InvalidRequest, "out of range"),
        ({"vcpus": 0}, InvalidRequest, "vcpus"),
        ({"memory": "9G"}, InvalidRequest, "wants 9 GiB of memory; the largest is hv3 with 8 GiB for VMs"),
        ({"vcpus": 9}, InvalidRequest, "wants 9 vCPUs; the largest is hv3 with 8 CPUs"),
        ({"node": "hv9"}, NotFound, "no node named 'hv9'; did you mean 'hv"),
        ({"node_limit": ("hv1", "hvx")}, NotFound, "no node named 'hvx'"),
        ({"node": "hv1", "node_limit": ("hv2",)}, InvalidRequest, "node hv1 is not in the node limit"),
        ({"selector": "memm"}, InvalidRequest, "no selector 'memm'; did you mean 'mem'"),
        (
            {"overlay_xml": "<domain><a></domain>"},
            InvalidRequest,
            "the XML overlay is not valid XML: line 1, column 14",
        ),
        ({"nics": (NicDefinition(network="lna"),)}, NotFound, "no network named 'lna'; did you mean 'lan'"),
        ({"nics": (NicDefinition(network="../x"),)}, NotFound, "no network named '../x'"),
        ({"nics": (NicDefinition(network="lan\n"),)}, NotFound, r"no network named 'lan\n'; did you mean 'lan'"),
        ({"nics": (NicDefinition(network="lan", mac="01:00:00:00:00:01"),)}, InvalidRequest, "multicast"),
        ({"nics": (NicDefinition(network="lan", mac="52:54:00:00:00:01\n"),)}, InvalidRequest, "is not a MAC address"),
        ({"nics": (NicDefinition(network="lan", mac="52:54:00:00:00:01"),) * 2}, InvalidRequest, "is given twice"),
        (
            {"disks": (DiskDefinition(pool="sdd", volume="web"),)},
            NotFound,
            "no storage pool named 'sdd'; did you mean 'ssd'",
        ),
        (
            {"disks": (DiskDefinition(pool="ssd", volume="wbe"),)},
            NotFound,
            "no volume named 'ssd/wbe'; did you mean 'ssd/web'",
        ),
        ({"disks": (DISK, DISK)}, InvalidRequest, "volume ssd/web is given twice"),
        ({"tags": ("a", "a")}, InvalidRequest, "tag 'a' is given twice"),
        ({"tags": ("a b",)}, InvalidRequest, "tag 'a b' is not a valid name"),
        ({"tags": ("a\n",)}, InvalidRequest, r"tag 'a\n' is not a valid name"),
    ],
)
def test_bad_definition_is_refused_and_nothing_is_changed(equipped, changes, error, message):
    before = equipped.dump()
    with pytest.raises(error, match=re.escape(message)):
        vm_define(equipped.ops, web(**changes))
    assert equipped.dump() == before


def test_size_is_judged_by_the_nodes_in_the_limit(small):
    small.add_node("big", memory=65536, cpus=32)
    vm_define(small.ops, web(name="ok", memory="32G", vcpus=16))
    with pytest.raises(InvalidRequest, match="the largest of the nodes in its node limit is hv1 with 8 GiB"):
        vm_define(small.ops, web(memory="32G", node_limit=("hv1",)))


def test_reserved_memory_of_the_host_is_not_for_vms(empty):
    empty.add_node("hv1", memory=8192, reserved=1024)
    with pytest.raises(InvalidRequest, match="hv1 with 7 GiB for VMs"):
        vm_define(empty.ops, web(memory="8G"))


def test_without_any_node_a_definition_is_not_judged_by_size(empty):
    assert vm_define(empty.ops, web(memory="900G")).state == "stopped"


def test_selector_that_a_node_offers_is_known(small):
    small.add_node("hv4", capabilities=("scheduling:nvme-first",))
    assert vm_define(small.ops, web(selector="nvme-first")).name == "web"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({}, AlreadyExists, "there is a VM named 'web' already"),
        ({"name": "other", "id": "11111111-1111-4111-8111-111111111111"}, AlreadyExists, "VM 'web' has the id 1111"),
        ({"name": "other", "nics": (NicDefinition(network="lan", mac="52-54-00-AA-00-01"),)}, AlreadyExists,
         "MAC address 52:54:00:aa:00:01 belongs to VM 'web'"),
        ({"name": "other", "disks": (DISK,)}, InUse, "volume ssd/web belongs to VM 'web'"),
    ],
)  # fmt: skip
def test_what_another_vm_has_is_refused(equipped, changes, error, message):
    vm_define(
        equipped.ops,
        web(
            id="11111111-1111-4111-8111-111111111111",
            nics=(NicDefinition(network="lan", mac="52:54:00:aa:00:01"),),
            disks=(DISK,),
        ),
    )
    before = equipped.dump()
    with pytest.raises(error, match=re.escape(message)):
        vm_define(equipped.ops, web(**changes))
    assert equipped.dump() == before


def test_name_of_a_vm_that_is_being_removed_says_so(small):
    small.run()
    vm_remove(small.ops, VmRemove(vm="web", force=True))
    with pytest.raises(AlreadyExists, match="VM 'web' is still being removed"):
        vm_define(small.ops, web())


def test_start_places_the_vm(small):
    view = vm_define(small.ops, web(start=True))
    assert (view.power, view.state, view.node) == ("running", "starting", "hv1")
    assert vm_define(small.ops, web(name="two", start=True)).node == "hv2"


def test_start_that_fits_nowhere_defines_nothing(small):
    for name in ("hv1", "hv2", "hv3"):
        small.set_node(name, scheduling="drain")
    before = small.dump()
    with pytest.raises(NoNodeFits) as caught:
        vm_define(small.ops, web(start=True))
    assert caught.value.reasons == dict.fromkeys(("hv1", "hv2", "hv3"), "it is flushed")
    assert small.dump() == before


def test_start_on_a_node_that_cannot_take_it_is_refused(small):
    small.set_node("hv2", maintenance=True)
    with pytest.raises(NoNodeFits, match="node hv2 cannot take VM 'web': it is in maintenance"):
        vm_define(small.ops, web(start=True, node="hv2"))


def test_start_needs_the_drivers_of_disks_and_nics(equipped):
    equipped.add_node("hv0", memory=65536, capabilities=("network:bridge",))
    view = vm_define(equipped.ops, web(start=True, disks=(DISK,), nics=(NIC,)))
    assert view.node == "hv1"
    with pytest.raises(NoNodeFits, match="hv0 cannot take VM 'two': it has no working storage driver dir"):
        vm_define(
            equipped.ops, web(name="two", start=True, node="hv0", disks=(DiskDefinition(pool="ssd", volume="db"),))
        )


def test_dump_defines_the_same_vm_again(equipped):
    id_ = equipped.define(
        "web", disks=(DISK,), nics=(NIC,), tags=("a",), overlay_xml="<domain/>", node_limit=("hv1", "hv2"), vcpus=3
    )
    spec = equipped.spec(id_)
    dumped = msgspec.to_builtins(vm_dump(equipped.ops, VmQuery(vm="web")))
    vm_remove(equipped.ops, VmRemove(vm="web"))
    again = vm_define(equipped.ops, decode_request(VmDefine, dumped))
    assert equipped.spec(again.id) == spec


def test_misspelt_field_is_named_with_the_nearest(small):
    with pytest.raises(InvalidRequest, match=r"web\.yml: .*unknown field `memroy`.*did you mean 'memory'"):
        decode_request(VmDefine, {"name": "web", "memory": 1, "memroy": 2}, "web.yml")
    with pytest.raises(InvalidRequest, match="Expected `int`"):
        decode_request(VmDefine, {"name": "web", "memory": 1, "vcpus": "two"})


# --- races ------------------------------------------------------------------------------------------


def test_of_twenty_writers_of_one_name_exactly_one_wins(small):
    results = []

    def write():
        try:
            results.append(vm_define(small.connect(), web()).id)
        except AlreadyExists as error:
            results.append(error)

    threads = [threading.Thread(target=write) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [result for result in results if isinstance(result, str)]
    assert len(won) == 1
    assert small.store.children(f"{keys.SPEC}/vm") == won
    assert len(results) == 20


def test_name_taken_in_the_last_moment_gives_the_clear_error(small):
    other = small.connect()
    small.before_commit("/name/vm/web", lambda: vm_define(other, web()))
    with pytest.raises(AlreadyExists, match="there is a VM named 'web' already"):
        vm_define(small.ops, web())
    assert len(small.store.children(f"{keys.SPEC}/vm")) == 1


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (lambda ops: network_remove(ops, NetworkQuery(network="lan")), "network 'lan' is being removed"),
        (lambda ops: volume_remove(ops, VolumeQuery(volume="ssd/web")), "volume 'ssd/web' is being removed"),
    ],
)
def test_what_is_removed_in_the_last_moment_is_not_used(equipped, remove, message):
    other = equipped.connect()
    equipped.before_commit("/spec/vm/", lambda: remove(other))
    with pytest.raises(Conflict, match=message):
        vm_define(equipped.ops, web(disks=(DISK,), nics=(NIC,)))
    assert equipped.store.children(f"{keys.SPEC}/vm") == []
    assert equipped.store.get(keys.name("vm", "web")) is None


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        (lambda ops: network_remove(ops, NetworkQuery(network="lan")), r"network 'lan' is used by VMs \(web\)"),
        (lambda ops: volume_remove(ops, VolumeQuery(volume="ssd/web")), "volume ssd/web is a disk of VM 'web'"),
    ],
)
def test_what_is_used_in_the_last_moment_is_not_removed(equipped, remove, message):
    other = equipped.connect()
    equipped.before_commit("/ref/", lambda: vm_define(other, web(disks=(DISK,), nics=(NIC,))))
    with pytest.raises(InUse, match=message):
        remove(equipped.ops)


def test_volume_taken_in_the_last_moment_is_refused(equipped):
    other = equipped.connect()
    equipped.before_commit("/holder", lambda: vm_define(other, web(name="other", disks=(DISK,))))
    with pytest.raises(InUse, match="volume ssd/web belongs to VM 'other'"):
        vm_define(equipped.ops, web(disks=(DISK,)))


def test_mac_taken_in_the_last_moment_is_drawn_again(equipped):
    other = equipped.connect()
    taken = []

    def take():
        mac = next(op.path.rpartition("/")[2] for op in caught if "/name/mac/" in op.path)
        vm_define(other, web(name="other", nics=(NicDefinition(network="lan", mac=mac),)))
        taken.append(mac)

    caught = []

    def fault(moment, _, operations):
        if moment is Moment.BEFORE and not caught and any("/name/mac/" in op.path for op in operations):
            caught.extend(operations)
            take()

    equipped.tree.fault = fault
    view = vm_define(equipped.ops, web(nics=(NIC,)))
    assert taken
    assert equipped.spec(view.id).nics[0].mac != taken[0]


def test_everybody_else_always_faster_ends_with_a_conflict(small):
    def fault(moment, _, operations):
        if moment is Moment.BEFORE and any("/spec/vm/" in op.path for op in operations):
            raise TransactionFailed(operations[0], Failure.BAD_VERSION)

    small.tree.fault = fault
    with pytest.raises(Conflict, match=r"others keep changing the same objects .*nothing was changed: repeat"):
        vm_define(small.ops, web())
