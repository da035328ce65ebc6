"""Storage contract: snapshots."""

import pytest

from pvc_core.plugin.errors import ObjectBusy, ObjectExists, ObjectMissing, Unsupported
from pvc_core.plugin.specs.storage import VolumeRef
from pvc_core.testkit.contracts.storage_backend import MIB, StorageSuite, Workbench, no_progress


class SnapshotRules(StorageSuite):
    """Snapshots; a driver without them must say so in every hook."""

    def test_a_driver_without_snapshots_says_so(self, bench: Workbench) -> None:
        volume = bench.make("web1")
        if bench.capabilities.snapshots:
            assert bench.first.snapshot_create(volume, "s1")
            return
        with pytest.raises(Unsupported):
            bench.first.snapshot_create(volume, "s1")
        with pytest.raises(Unsupported):
            bench.first.snapshot_delete(volume, "s1")
        with pytest.raises(Unsupported):
            bench.first.snapshot_rename(volume, "s1", "s2")
        with pytest.raises(Unsupported):
            bench.first.snapshot_protect(volume, "s1", protected=True)
        with pytest.raises(Unsupported):
            bench.first.snapshot_rollback(volume, "s1", no_progress)

    def test_a_snapshot_is_listed_with_its_volume(self, bench: Workbench) -> None:
        if not bench.capabilities.snapshots:
            return
        volume = bench.make("web1")
        assert bench.first.snapshot_create(volume, "s2")
        assert bench.first.snapshot_create(volume, "s2")
        assert bench.first.snapshot_create(volume, "s1")
        snapshots = bench.info(volume).snapshots
        assert [s.name for s in snapshots] == ["s2", "s1"], "in the order of their making"
        assert {s.size_bytes for s in snapshots} == {4 * MIB}
        assert not any(s.protected for s in snapshots)
        assert bench.first.volume_list(bench.pool) == [bench.first.volume_info(volume)]

    def test_rolling_back_brings_the_contents_back_again_and_again(self, bench: Workbench) -> None:
        if not bench.capabilities.snapshots:
            return
        volume = self._history(bench)
        for snapshot, contents in (("s1", b"state 1"), ("s3", b"state 3"), ("s2", b"state 2"), ("s2", b"state 2")):
            assert bench.first.snapshot_rollback(volume, snapshot, no_progress)
            assert bench.head(volume, 7) == contents
            bench.backend.write(volume, 0, b"written over")
        assert sorted(s.name for s in bench.info(volume).snapshots) == ["s1", "s2", "s3"]

    def test_rolling_back_brings_the_size_back(self, bench: Workbench) -> None:
        if not bench.capabilities.snapshots:
            return
        volume = bench.make("web1", contents=b"small")
        bench.first.snapshot_create(volume, "s1")
        bench.first.volume_resize(volume, 8 * MIB)
        bench.first.snapshot_rollback(volume, "s1", no_progress)
        assert bench.info(volume).size_bytes == 4 * MIB
        assert bench.first.volume_resize(volume, 16 * MIB)
        assert bench.backend.read(volume, 15 * MIB, 8) == bytes(8)

    @pytest.mark.parametrize("order", [("s1", "s2", "s3"), ("s3", "s2", "s1"), ("s2", "s1", "s3")])
    def test_snapshots_are_deleted_in_any_order(self, bench: Workbench, order: tuple[str, ...]) -> None:
        if not bench.capabilities.snapshots:
            return
        volume = self._history(bench)
        left = {"s1": b"state 1", "s2": b"state 2", "s3": b"state 3"}
        for snapshot in order:
            assert bench.first.snapshot_delete(volume, snapshot)
            assert bench.first.snapshot_delete(volume, snapshot)
            del left[snapshot]
            assert bench.head(volume, 7) == b"state 4"
            assert sorted(s.name for s in bench.info(volume).snapshots) == sorted(left)
            for name, contents in left.items():
                copy = bench.ref(f"copy-{name}")
                bench.first.volume_clone(volume, name, copy, full_copy=True)
                assert bench.head(copy, 7) == contents
                bench.first.volume_delete(copy)

    def test_a_snapshot_that_was_rolled_back_to_can_be_deleted(self, bench: Workbench) -> None:
        if not bench.capabilities.snapshots:
            return
        volume = self._history(bench)
        bench.first.snapshot_rollback(volume, "s2", no_progress)
        for snapshot in ("s2", "s1", "s3"):
            bench.first.snapshot_delete(volume, snapshot)
            assert bench.head(volume, 7) == b"state 2"

    def test_what_is_missing_is_said_to_be_missing(self, bench: Workbench) -> None:
        if not bench.capabilities.snapshots:
            return
        volume, absent = bench.make("web1"), bench.ref("nothing")
        with pytest.raises(ObjectMissing):
            bench.first.snapshot_create(absent, "s1")
        with pytest.raises(ObjectMissing):
            bench.first.snapshot_rollback(volume, "s1", no_progress)
        with pytest.raises(ObjectMissing):
            bench.first.snapshot_rename(volume, "s1", "s2")
        with pytest.raises(ObjectMissing):
            bench.first.snapshot_protect(volume, "s1", protected=True)
        with pytest.raises(ObjectMissing):
            bench.first.volume_clone(volume, "s1", bench.ref("copy"), full_copy=True)
        assert bench.first.snapshot_delete(volume, "s1")
        assert bench.names() == ["web1"]

    def test_a_renamed_snapshot_keeps_its_contents(self, bench: Workbench) -> None:
        if not bench.capabilities.snapshots:
            return
        volume = self._history(bench)
        assert bench.first.snapshot_rename(volume, "s1", "first")
        assert bench.first.snapshot_rename(volume, "s1", "first")
        with pytest.raises(ObjectExists):
            bench.first.snapshot_rename(volume, "s2", "first")
        bench.first.snapshot_rollback(volume, "first", no_progress)
        assert bench.head(volume, 7) == b"state 1"

    def test_a_protected_snapshot_is_not_deleted(self, bench: Workbench) -> None:
        if not bench.capabilities.snapshots:
            return
        volume = bench.make("web1")
        bench.first.snapshot_create(volume, "s1")
        assert bench.first.snapshot_protect(volume, "s1", protected=True)
        assert bench.first.snapshot_protect(volume, "s1", protected=True)
        assert [s.protected for s in bench.info(volume).snapshots] == [True]
        with pytest.raises(ObjectBusy):
            bench.first.snapshot_delete(volume, "s1")
        assert bench.first.snapshot_protect(volume, "s1", protected=False)
        assert bench.first.snapshot_delete(volume, "s1")
        assert bench.info(volume).snapshots == ()

    def test_a_clone_of_a_snapshot_protects_it(self, bench: Workbench) -> None:
        if not (bench.capabilities.snapshots and bench.capabilities.clones):
            return
        volume, clone = self._history(bench), bench.ref("clone")
        bench.first.volume_clone(volume, "s1", clone, full_copy=False)
        assert bench.head(clone, 7) == b"state 1"
        assert bench.info(clone).parent == "web1@s1"
        with pytest.raises(ObjectBusy):
            bench.first.snapshot_delete(volume, "s1")
        with pytest.raises(ObjectBusy):
            bench.first.volume_delete(volume)
        bench.first.snapshot_rename(volume, "s1", "golden")
        assert bench.info(clone).parent == "web1@golden"
        bench.backend.write(clone, 0, b"clone's")
        assert bench.first.snapshot_delete(volume, "s2")
        assert bench.head(clone, 7) == b"clone's"
        assert bench.first.volume_delete(clone)
        assert bench.first.snapshot_delete(volume, "golden")
        assert bench.head(volume, 7) == b"state 4"

    def test_snapshots_go_with_their_volume(self, bench: Workbench) -> None:
        if not bench.capabilities.snapshots:
            return
        volume = self._history(bench)
        assert bench.first.volume_delete(volume)
        assert bench.names() == []
        assert bench.info(bench.make("web1")).snapshots == ()

    def test_snapshots_follow_a_renamed_volume(self, bench: Workbench) -> None:
        if not bench.capabilities.snapshots:
            return
        bench.first.volume_rename(self._history(bench), "renamed")
        volume = bench.ref("renamed")
        bench.first.snapshot_rollback(volume, "s1", no_progress)
        assert bench.head(volume, 7) == b"state 1"

    def _history(self, bench: Workbench) -> VolumeRef:
        volume = bench.make("web1", contents=b"state 1")
        for number in (1, 2, 3):
            bench.first.snapshot_create(volume, f"s{number}")
            bench.backend.write(volume, 0, f"state {number + 1}".encode())
        return volume
