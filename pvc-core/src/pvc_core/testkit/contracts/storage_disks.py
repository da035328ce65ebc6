"""Storage contract: disks of VMs, and who may hold them."""

from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree as ET

import pytest

from pvc_core.plugin.errors import DriverError, ObjectBusy, ObjectMissing, Unsupported
from pvc_core.plugin.specs.storage import Attachment, StorageDriver, VolumeRef
from pvc_core.testkit.contracts.storage_backend import MIB, StorageSuite, Workbench, no_progress

VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"
OTHER = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a02"


class DiskRules(StorageSuite):
    """Attaching.  Epochs are those of the VM's claim: a higher one has replaced every lower one."""

    def test_an_attached_volume_says_how_it_is_reached(self, bench: Workbench) -> None:
        source = bench.first.disk_attach(bench.make("web1"), VM, epoch=1, incoming=False)
        assert ET.fromstring(source.source_xml).tag == "source"  # noqa: S314  (it is our own)
        assert source.format in {"raw", *bench.capabilities.formats}
        assert source == bench.first.disk_attach(bench.ref("web1"), VM, epoch=1, incoming=False)

    def test_an_absent_volume_is_not_attached(self, bench: Workbench) -> None:
        with pytest.raises(ObjectMissing):
            bench.first.disk_attach(bench.ref("nothing"), VM, epoch=1, incoming=False)
        assert bench.first.disk_attachments() == []

    def test_detaching_what_is_not_attached_is_success(self, bench: Workbench) -> None:
        volume = bench.make("web1")
        assert bench.first.disk_detach(volume, VM)
        bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
        assert bench.first.disk_detach(volume, VM)
        assert bench.first.disk_detach(volume, VM)
        assert bench.first.disk_detach(bench.ref("nothing"), VM)
        assert bench.first.disk_attachments() == []

    def test_attachments_are_known_after_a_restart_of_the_daemon(self, bench: Workbench) -> None:
        for name in ("web1", "web2", "web3"):
            bench.first.disk_attach(bench.make(name), VM, epoch=1, incoming=False)
        bench.first.disk_detach(bench.ref("web2"), VM)
        found = bench.backend.driver("node1").disk_attachments()
        assert sorted(found, key=lambda a: a.volume) == [
            Attachment(pool=bench.pool.id, volume=name, vm=VM) for name in ("web1", "web3")
        ]
        assert bench.second.disk_attachments() == []

    def test_an_attached_volume_is_neither_deleted_nor_renamed_nor_rolled_back(self, bench: Workbench) -> None:
        volume = bench.make("web1")
        if bench.capabilities.snapshots:
            bench.first.snapshot_create(volume, "s1")
        bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
        with pytest.raises(ObjectBusy):
            bench.first.volume_delete(volume)
        with pytest.raises(ObjectBusy):
            bench.first.volume_rename(volume, "other")
        if bench.capabilities.snapshots:
            with pytest.raises(ObjectBusy):
                bench.first.snapshot_rollback(volume, "s1", no_progress)
        bench.first.disk_detach(volume, VM)
        assert bench.first.volume_delete(volume)

    def test_growing_an_attached_volume(self, bench: Workbench) -> None:
        for format_ in bench.capabilities.formats:
            volume = bench.ref(f"disk-{format_}")
            bench.first.volume_create(volume, 4 * MIB, format_)
            bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
            if bench.capabilities.resize_attached:
                assert bench.first.volume_resize(volume, 8 * MIB)
                assert bench.info(volume).size_bytes == 8 * MIB
            else:
                with pytest.raises(ObjectBusy):
                    bench.first.volume_resize(volume, 8 * MIB)
            bench.first.disk_detach(volume, VM)
            bench.first.volume_resize(volume, 8 * MIB)
            bench.first.disk_attach(volume, VM, epoch=2, incoming=False)
            bench.first.disk_detach(volume, VM)
            bench.backend.write(volume, 8 * MIB - 8, b"the end.")
            assert bench.backend.read(volume, 8 * MIB - 8, 8) == b"the end."

    def test_a_volume_is_not_attached_on_two_nodes(self, bench: Workbench) -> None:
        if not self._two_nodes(bench):
            return
        volume = bench.make("web1")
        bench.first.disk_attach(volume, VM, epoch=3, incoming=False)
        with pytest.raises(ObjectBusy, match="node1"):
            bench.second.disk_attach(volume, VM, epoch=3, incoming=False)
        assert bench.second.disk_attachments() == []
        bench.first.disk_detach(volume, VM)
        assert bench.second.disk_attach(volume, VM, epoch=4, incoming=False)

    def test_a_volume_is_not_attached_to_two_vms(self, bench: Workbench) -> None:
        if not self.locks:
            return
        volume = bench.make("web1")
        bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
        for driver in (bench.first, bench.second) if self._two_nodes(bench) else (bench.first,):
            with pytest.raises(ObjectBusy, match=VM):
                driver.disk_attach(volume, OTHER, epoch=9, incoming=False)
        bench.first.disk_detach(volume, VM)
        assert bench.first.disk_attach(volume, OTHER, epoch=1, incoming=False)

    def test_the_target_of_a_live_migration_is_let_in_beside_the_source(self, bench: Workbench) -> None:
        if not self._two_nodes(bench):
            return
        volume = bench.make("web1")
        bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
        assert bench.second.disk_attach(volume, VM, epoch=1, incoming=True)
        assert bench.second.disk_attach(volume, VM, epoch=1, incoming=True)
        assert [a.volume for a in bench.first.disk_attachments()] == ["web1"]
        # The claim was handed over: the source lets go, the target stays, under the new epoch.
        bench.first.disk_detach(volume, VM)
        assert [a.volume for a in bench.second.disk_attachments()] == ["web1"]
        assert bench.second.disk_attach(volume, VM, epoch=2, incoming=False)
        with pytest.raises(ObjectBusy):
            bench.first.disk_attach(volume, VM, epoch=2, incoming=False)

    def test_a_failed_migration_leaves_the_source_as_it_was(self, bench: Workbench) -> None:
        if not self._two_nodes(bench):
            return
        volume = bench.make("web1")
        bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
        bench.second.disk_attach(volume, VM, epoch=1, incoming=True)
        bench.second.disk_detach(volume, VM)
        assert bench.second.disk_attachments() == []
        with pytest.raises(ObjectBusy):
            bench.second.disk_attach(volume, VM, epoch=1, incoming=False)
        assert bench.first.disk_attach(volume, VM, epoch=1, incoming=False)

    def test_the_same_node_attaches_again_after_a_power_cut(self, bench: Workbench) -> None:
        if not self.locks:
            return
        volume = bench.make("web1")
        bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
        assert bench.backend.driver("node1").disk_attach(volume, VM, epoch=1, incoming=False)
        assert bench.backend.driver("node1").disk_attach(volume, VM, epoch=2, incoming=False)

    def test_a_higher_epoch_takes_over_from_a_dead_node(self, bench: Workbench) -> None:
        if not self._two_nodes(bench):
            return
        volume = bench.make("web1")
        bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
        assert bench.second.disk_attach(volume, VM, epoch=2, incoming=False)
        assert [a.volume for a in bench.second.disk_attachments()] == ["web1"]
        assert bench.first.disk_attachments() == []

    def test_a_late_call_of_a_former_holder_is_refused(self, bench: Workbench) -> None:
        if not self._two_nodes(bench):
            return
        volume = bench.make("web1")
        bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
        bench.second.disk_attach(volume, VM, epoch=2, incoming=False)
        self._refused(bench.first, volume)
        assert bench.first.disk_detach(volume, VM)
        assert [a.volume for a in bench.second.disk_attachments()] == ["web1"]
        bench.second.disk_detach(volume, VM)
        self._refused(bench.first, volume)

    def test_flushing_locks_lets_another_node_attach(self, bench: Workbench) -> None:
        if not self._two_nodes(bench):
            return
        volume = bench.make("web1")
        bench.first.disk_attach(volume, VM, epoch=3, incoming=False)
        told = bench.second.disk_flush_locks(volume, VM, epoch=3)
        assert len(told) == 1
        assert "node1" in told[0]
        assert bench.first.disk_attachments() == []
        assert bench.second.disk_flush_locks(volume, VM, epoch=3) == []
        assert bench.second.disk_attach(volume, VM, epoch=3, incoming=False)

    def test_locks_that_are_newer_or_of_another_vm_are_not_flushed(self, bench: Workbench) -> None:
        if not self._two_nodes(bench):
            return
        volume = bench.make("web1")
        bench.first.disk_attach(volume, VM, epoch=3, incoming=False)
        for vm, epoch in ((VM, 2), (OTHER, 9)):
            with pytest.raises(ObjectBusy):
                bench.second.disk_flush_locks(volume, vm, epoch=epoch)
            assert [a.volume for a in bench.first.disk_attachments()] == ["web1"]
        with pytest.raises(ObjectMissing):
            bench.second.disk_flush_locks(bench.ref("nothing"), VM, epoch=3)

    def test_of_two_nodes_that_race_only_one_gets_the_volume(self, bench: Workbench) -> None:
        if not self._two_nodes(bench):
            return

        def attach(driver: StorageDriver, volume: VolumeRef) -> bool:
            try:
                return bool(driver.disk_attach(volume, VM, epoch=1, incoming=False))
            except ObjectBusy:
                return False

        with ThreadPoolExecutor(2) as threads:
            for number in range(10):
                volume = bench.make(f"disk-{number}")
                won = list(threads.map(attach, (bench.first, bench.second), (volume, volume)))
                assert won.count(True) == 1
                holders = [volume.name in [a.volume for a in d.disk_attachments()] for d in (bench.first, bench.second)]
                assert holders == won

    def test_blocking_a_node_is_confirmed_or_unsupported(self, bench: Workbench) -> None:
        volume = bench.make("web1")
        identity = bench.first.node_identity()
        if not bench.capabilities.blocks_nodes:
            with pytest.raises(Unsupported):
                bench.second.node_block("node1", identity, [volume], 2)
            return
        bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
        result = bench.second.node_block("node1", identity, [volume], 2)
        assert result.blocked
        assert result.evidence
        with pytest.raises(DriverError):
            bench.first.disk_attach(volume, VM, epoch=2, incoming=False)
        assert bench.second.disk_attach(volume, VM, epoch=2, incoming=False)
        bench.second.disk_detach(volume, VM)
        assert bench.second.node_unblock("node1", identity, 2)
        assert bench.first.disk_attach(volume, VM, epoch=3, incoming=False)

    def test_a_call_of_an_earlier_loss_that_comes_late_changes_nothing(self, bench: Workbench) -> None:
        if not bench.capabilities.blocks_nodes:
            return
        volume, identity = bench.make("web1"), bench.first.node_identity()
        assert bench.second.node_block("node1", identity, [volume], 2).blocked
        assert bench.second.node_unblock("node1", identity, 2)
        assert not bench.second.node_block("node1", identity, [volume], 2).blocked
        assert bench.first.disk_attach(volume, VM, epoch=1, incoming=False)
        bench.first.disk_detach(volume, VM)
        assert bench.second.node_block("node1", identity, [volume], 3).blocked
        assert bench.second.node_unblock("node1", identity, 2)
        with pytest.raises(DriverError):
            bench.first.disk_attach(volume, VM, epoch=2, incoming=False)

    def test_a_block_concerns_one_node_and_outlives_its_daemon(self, bench: Workbench) -> None:
        if not bench.capabilities.blocks_nodes:
            return
        volume, other = bench.make("web1"), bench.make("web2")
        identity = bench.first.node_identity()
        bench.second.disk_attach(other, OTHER, epoch=1, incoming=False)
        for _ in range(2):
            assert bench.second.node_block("node1", identity, [volume], 2).blocked
        with pytest.raises(DriverError):
            bench.backend.driver("node1").disk_attach(volume, VM, epoch=1, incoming=False)
        assert bench.second.disk_attach(other, OTHER, epoch=1, incoming=False)
        assert [a.volume for a in bench.second.disk_attachments()] == ["web2"]
        for _ in range(2):
            assert bench.second.node_unblock("node1", identity, 2)
        assert bench.backend.driver("node1").disk_attach(volume, VM, epoch=1, incoming=False)

    def _two_nodes(self, bench: Workbench) -> bool:
        return self.locks and bench.capabilities.shared

    def _refused(self, driver: StorageDriver, volume: VolumeRef) -> None:
        with pytest.raises(DriverError) as caught:
            driver.disk_attach(volume, VM, epoch=1, incoming=False)
        assert not caught.value.retryable
