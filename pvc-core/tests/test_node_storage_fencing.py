"""A node without any power controller: its VMs run elsewhere once their storage is closed to it, and it comes back."""

import pytest

from pvc_core.model.fence import FenceStage, ProofKind
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import DiskDefinition, VmDefine
from pvc_core.ops.volume import VolumeAdd, volume_add
from pvc_core.plugin.errors import DriverError
from pvc_core.store import documents, keys
from pvc_core.testkit.storage_site import StorageSite

NODES = ("hv1", "hv2", "hv3")


class Site(StorageSite):
    def __init__(self):
        super().__init__(*NODES)
        self.pool()
        volume = volume_add(self.ops, VolumeAdd(pool="ssd", name="root", size="1G")).id
        self.until(lambda: self.settled(volume))
        self.vm = vm_define(
            self.ops,
            VmDefine(
                name="web", memory=512, node="hv3", start=True, disks=(DiskDefinition(pool="ssd", volume="root"),)
            ),
        ).id
        self.until(lambda: self.where() == ["hv3"])
        # Its report has what the storage knows it by.
        self.cluster.run(self.cluster.timing.publish)

    def where(self):
        return self.cluster.world.running(self.vm)

    def record(self):
        entry = documents.read(self.ops.store, keys.fence("hv3"))
        return entry.value if entry is not None else None

    def claim(self):
        return documents.read(self.ops.store, keys.claim(self.vm)).value


@pytest.fixture
def site():
    return Site()


def test_a_vm_runs_elsewhere_once_its_storage_is_closed_to_the_lost_node(site):
    site.cut_off("hv3")
    site.until(lambda: site.claim().node in {"hv1", "hv2"} and site.claim().node in site.where())
    record = site.record()
    assert [proof.kind for proof in record.proofs] == [ProofKind.STORAGE]
    assert site.backend.blocked == {"hv3"}


def test_without_confirmation_by_the_storage_nothing_is_started_elsewhere(site):
    for name in ("hv1", "hv2"):
        site.faults[name].fail_always("node_block", DriverError("the monitors do not answer"))
    site.cut_off("hv3")
    site.cluster.run(300)
    assert site.claim().node == "hv3"
    record = site.record()
    assert (record.stage, record.proofs) == (FenceStage.FENCING, ())
    assert "the monitors do not answer" in record.waits_for


def test_the_node_is_let_in_again_once_it_has_ended_what_it_lost(site):
    site.cut_off("hv3")
    site.until(lambda: site.claim().node in {"hv1", "hv2"})
    assert "hv3" in site.where(), "nobody has switched it off: it still executes the guest, which cannot write"
    site.nodes["hv3"].start()
    site.until(lambda: site.backend.blocked == set())
    assert site.where() == [site.claim().node]
    assert site.record().blocked == ()


def test_storage_that_was_closed_without_an_answer_is_opened_to_the_node_that_is_back(site):
    for name in ("hv1", "hv2"):
        site.faults[name].lose_answer("node_block", DriverError("no answer within 30 s"), times=100)
    site.cut_off("hv3")
    site.until(lambda: site.backend.blocked == {"hv3"})
    assert site.claim().node == "hv3"
    site.nodes["hv3"].start()
    site.until(lambda: site.backend.blocked == set())
    assert site.record().stage is FenceStage.CANCELLED
    assert site.where() == ["hv3"]
