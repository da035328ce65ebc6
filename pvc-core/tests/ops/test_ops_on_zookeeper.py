"""Operations on a real ZooKeeper: transactions and refusals are the same as on the in-memory store."""

import random
import threading

import pytest

from pvc_core.model.errors import AlreadyExists, InUse
from pvc_core.model.storage import VolumeState
from pvc_core.ops.evacuate import apply_evacuation
from pvc_core.ops.network import NetworkQuery, network_forget, network_remove
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import DiskDefinition, NicDefinition, VmDefine
from pvc_core.ops.vm_modify import VmModify, VmPatch, VmRename, vm_modify, vm_rename
from pvc_core.ops.vm_power import VmStart, VmStop, vm_start, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_views import VmList, vm_list
from pvc_core.ops.volume import VolumeAdd, VolumeQuery, volume_add, volume_info, volume_remove
from pvc_core.ops.wait import ObjectGoal, VmGoal, wait_vm, wait_volume
from pvc_core.store import keys
from pvc_core.testkit.zookeeper import ZooKeeperEnsemble

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    with ZooKeeperEnsemble(tmp_path_factory.mktemp("zookeeper")) as running:
        yield running


@pytest.fixture(scope="module")
def real(ensemble, small_type):
    store = ensemble.connect(session_timeout_s=10.0)
    small = small_type(store)
    for name in ("hv1", "hv2", "hv3"):
        small.add_node(name)
    small.network()
    small.pool()
    yield small
    store.close()


def test_life_of_a_vm(real):
    before = set(real.dump())
    real.volume("web")
    disk, nic = DiskDefinition(pool="ssd", volume="web"), NicDefinition(network="lan")
    vm = vm_define(real.ops, VmDefine(name="web", memory="1G", disks=(disk,), nics=(nic,))).id
    with pytest.raises(AlreadyExists):
        vm_define(real.ops, VmDefine(name="web", memory="1G"))
    with pytest.raises(InUse, match="belongs to VM 'web'"):
        vm_define(real.ops, VmDefine(name="two", memory="1G", disks=(disk,)))
    with pytest.raises(InUse, match="is used by VMs"):
        network_remove(real.ops, NetworkQuery(network="lan"))
    with pytest.raises(InUse, match="is a disk of VM 'web'"):
        volume_remove(real.ops, VolumeQuery(volume="ssd/web"))
    vm_start(real.ops, VmStart(vm="web"))
    real.report_running(vm)
    assert apply_evacuation(real.ops, "hv1").moves == {vm: "hv2"}
    vm_rename(real.ops, VmRename(vm="web", name="www"))
    vm_stop(real.ops, VmStop(vm="www"))
    real.report_stopped(vm)
    vm_modify(real.ops, VmModify(vm="www", patch=VmPatch(nics=(), memory=512)))
    assert [view.name for view in vm_list(real.ops, VmList())] == ["www"]
    assert vm_remove(real.ops, VmRemove(vm="www", volumes=True)).gone
    volume = volume_info(real.ops, VolumeQuery(volume="ssd/web"))
    assert (volume.state, volume.vm) == ("deleting", None)
    left = set(real.dump()) - before
    assert {path.rpartition("/")[2] for path in left} == {volume.id, "ssd:web"}


def test_of_twenty_writers_of_one_name_exactly_one_wins(real, ensemble):
    stores = [ensemble.connect(session_timeout_s=10.0) for _ in range(4)]
    results = []

    def write(store):
        try:
            results.append(vm_define(real.ops._replace(store=store), VmDefine(name="race", memory=1)).id)
        except AlreadyExists as error:
            results.append(error)

    threads = [threading.Thread(target=write, args=(stores[number % 4],)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    assert len(results) == 20
    assert len([result for result in results if isinstance(result, str)]) == 1
    vm_remove(real.ops, VmRemove(vm="race"))


def test_define_and_removal_of_its_network_exclude_each_other(real, ensemble):
    stores = [ensemble.connect(session_timeout_s=10.0) for _ in range(2)]
    rng = random.Random(1)
    outcomes = set()
    for number in range(30):
        network = real.network("tmp")
        start = threading.Barrier(2)
        result = {}

        def define(number=number, start=start, result=result):
            start.wait(10)
            nic = NicDefinition(network="tmp")
            result["vm"] = attempt(
                lambda: vm_define(
                    real.ops._replace(store=stores[0]), VmDefine(name=f"r{number}", memory=1, nics=(nic,))
                )
            )

        def remove(start=start, result=result):
            start.wait(10)
            result["network"] = attempt(
                lambda: network_remove(real.ops._replace(store=stores[1]), NetworkQuery(network="tmp"))
            )

        threads = [threading.Thread(target=call) for call in rng.sample([define, remove], 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outcomes.add((result["vm"], result["network"]))
        if result["vm"]:
            vm_remove(real.ops, VmRemove(vm=f"r{number}"))
            network_remove(real.ops, NetworkQuery(network="tmp"))
        assert network_forget(real.ops, network)
    for store in stores:
        store.close()
    assert outcomes <= {(True, False), (False, True)}


def attempt(call):
    from pvc_core.model.errors import PvcError

    try:
        call()
    except PvcError:
        return False
    return True


def test_waits_end_by_events_of_the_server(real):
    vm = real.define("waited")
    vm_start(real.ops, VmStart(vm="waited"))
    other = threading.Thread(target=lambda: real.report_running(vm))
    begun = threading.Event()

    def report(_):
        if not begun.is_set():
            begun.set()
            other.start()

    assert wait_vm(real.ops, vm, VmGoal.RUNNING, timeout_s=30, report=report).view.state == "running"
    other.join()
    volume = volume_add(real.ops, VolumeAdd(pool="ssd", name="waited", size="1G")).id
    real.report_volume(volume, state=VolumeState.CREATING)
    steps = iter([lambda: real.report_volume(volume)])
    found = wait_volume(real.ops, volume, ObjectGoal.READY, timeout_s=30, report=lambda _: next(steps, int)())
    assert found is not None
    assert found.state == "ready"
    assert real.store.get(keys.volume_spec(volume).path) is not None
