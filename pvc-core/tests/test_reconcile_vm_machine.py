"""Which machine type a guest is started with."""

import pytest
from msgspec.structs import replace

from pvc_core.config.schema import Timing
from pvc_core.hypervisor.memory import MemoryHypervisor
from pvc_core.model.vm import VmSpec
from pvc_core.node.reconcile.vm import VmReconciler
from pvc_core.store import keys
from pvc_core.store.documents import create
from pvc_core.testkit.stepped import SteppedCluster

OFFERED = {"hv1": ("pc-q35-7.2", "pc-q35-10.0", "q35"), "hv2": ("pc-q35-7.1", "pc-q35-7.2", "q35")}


@pytest.fixture
def cluster(monkeypatch):
    facts = MemoryHypervisor.facts
    monkeypatch.setattr(
        MemoryHypervisor,
        "facts",
        lambda self: replace(facts(self), machine_types=OFFERED[self._host.name]),
    )
    made = SteppedCluster(("hv1",), Timing())
    for name in ("hv1", "hv2"):
        made.add(name, reconcilers=lambda context, node: {"vm": VmReconciler(context, parked=node.parked)})
    made.run(30.0)
    return made


def started_with(cluster, **changes):
    spec = VmSpec(id="a", name="a", memory_mib=64, vcpus=1, node="hv1", power="running", **changes)
    cluster.operator.commit(create(keys.vm_spec("a"), spec))
    cluster.until(lambda: cluster.world.running("a") == ["hv1"])
    return cluster.world._hosts["hv1"].guests["a"].plan.machine


def test_guest_gets_the_newest_machine_type_that_every_node_offers(cluster):
    assert started_with(cluster) == "pc-q35-7.2"


def test_only_the_nodes_it_may_run_on_count(cluster):
    assert started_with(cluster, node_limit=("hv1",)) == "pc-q35-10.0"


def test_named_machine_type_is_kept(cluster):
    assert started_with(cluster, machine="pc-q35-7.1") == "pc-q35-7.1"
