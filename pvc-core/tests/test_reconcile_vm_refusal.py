"""A migration whose target has lost its hypervisor, with real VM reconcilers on an in-memory world."""

import pytest
from msgspec.structs import replace

from pvc_core.config.schema import Timing
from pvc_core.model.vm import VmSpec
from pvc_core.node.reconcile.vm import VmReconciler
from pvc_core.store import documents, keys
from pvc_core.store.documents import create
from pvc_core.testkit.stepped import SteppedCluster

TIMING = Timing()


@pytest.fixture
def cluster():
    made = SteppedCluster(("hv1",), TIMING)
    for name in ("hv1", "hv2"):
        made.add(name, reconcilers=lambda context, node: {"vm": VmReconciler(context, parked=node.parked)})
    spec = VmSpec(id="a", name="a", memory_mib=64, vcpus=1, node="hv1", power="running", migration="live")
    made.operator.commit(create(keys.vm_spec("a"), spec))
    made.until(lambda: made.world.running("a") == ["hv1"])
    return made


def spec(cluster):
    return documents.read(cluster.operator, keys.vm_spec("a")).value


def test_target_whose_hypervisor_does_not_answer_refuses_at_once_and_says_so(cluster):
    cluster.world.stop_libvirtd("hv2")
    entry = documents.read(cluster.operator, keys.vm_spec("a"))
    cluster.operator.commit(entry.put(replace(entry.value, node="hv2", generation=entry.value.generation + 1)))
    took = cluster.until(lambda: spec(cluster).node == "hv1")
    assert took < TIMING.prepare
    last = documents.read(cluster.operator, keys.vm_status("a")).value.last_migration
    assert last.message == "node hv2 refused: libvirtd of host hv2 does not answer"
    assert cluster.world.running("a") == ["hv1"]
    cluster.world.start_libvirtd("hv2")
    cluster.run(TIMING.resync)
    assert cluster.world.running("a") == ["hv1"]
    assert documents.read(cluster.operator, keys.claim("a")).value.migration is None
