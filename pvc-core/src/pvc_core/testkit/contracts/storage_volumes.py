"""Storage contract: pools and volumes."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pvc_core.plugin.errors import DriverError, ObjectBusy, ObjectExists, ObjectMissing, Unsupported
from pvc_core.testkit.contracts.storage_backend import MIB, StorageSuite, Workbench


class VolumeRules(StorageSuite):
    """Pools and volumes."""

    def test_a_pool_that_is_there_is_adopted(self, bench: Workbench) -> None:
        bench.make("web1")
        assert bench.first.pool_ensure(bench.pool)
        assert bench.backend.driver("node1").pool_ensure(bench.pool)
        assert bench.names() == ["web1"]

    def test_the_usage_of_a_pool_adds_up(self, bench: Workbench) -> None:
        usage = bench.first.pool_usage(bench.pool)
        assert usage.total_bytes > 0
        assert min(usage.used_bytes, usage.free_bytes) >= 0
        assert usage.used_bytes + usage.free_bytes <= usage.total_bytes

    def test_a_pool_with_volumes_is_not_deleted(self, bench: Workbench) -> None:
        volume = bench.make("web1")
        with pytest.raises(ObjectBusy):
            bench.first.pool_delete(bench.pool)
        assert bench.info(volume).name == "web1"

    def test_an_empty_pool_is_deleted_and_absent_is_success(self, bench: Workbench) -> None:
        bench.first.volume_delete(bench.make("web1"))
        assert bench.first.pool_delete(bench.pool)
        assert bench.first.pool_delete(bench.pool)

    @pytest.mark.parametrize("size_bytes", [MIB, 3 * MIB, 64 * MIB, 1024 * MIB])
    def test_a_volume_has_exactly_the_size_asked_for(self, bench: Workbench, size_bytes: int) -> None:
        volume = bench.make("web1", size_bytes)
        assert bench.info(volume).size_bytes == size_bytes
        assert [info.size_bytes for info in bench.first.volume_list(bench.pool)] == [size_bytes]

    def test_a_volume_can_have_any_format_of_the_capabilities(self, bench: Workbench) -> None:
        for format_ in bench.capabilities.formats:
            volume = bench.ref(f"disk-{format_}")
            assert bench.first.volume_create(volume, 4 * MIB, format_)
            assert bench.info(volume).format == format_
        assert bench.capabilities.formats

    def test_another_format_is_refused(self, bench: Workbench) -> None:
        with pytest.raises(DriverError) as caught:
            bench.first.volume_create(bench.ref("web1"), MIB, "no-such-format")
        assert not caught.value.retryable
        assert bench.names() == []

    def test_creating_again_is_success_and_keeps_the_contents(self, bench: Workbench) -> None:
        volume = bench.make("web1", contents=b"contents")
        assert bench.first.volume_create(volume, 4 * MIB, "")
        assert bench.head(volume) == b"contents"

    def test_creating_again_with_another_size_is_refused(self, bench: Workbench) -> None:
        volume = bench.make("web1")
        with pytest.raises(ObjectExists):
            bench.first.volume_create(volume, 8 * MIB, "")
        assert bench.info(volume).size_bytes == 4 * MIB

    def test_a_new_volume_reads_as_zeros(self, bench: Workbench) -> None:
        volume = bench.make("web1", contents=b"left over")
        bench.first.volume_delete(volume)
        bench.make("web1")
        assert bench.head(volume, 64) == bytes(64)

    def test_an_absent_volume_is_said_to_be_missing(self, bench: Workbench) -> None:
        absent = bench.ref("nothing")
        with pytest.raises(ObjectMissing):
            bench.first.volume_info(absent)
        with pytest.raises(ObjectMissing):
            bench.first.volume_resize(absent, 8 * MIB)
        with pytest.raises(ObjectMissing):
            bench.first.volume_rename(absent, "other")
        with pytest.raises(ObjectMissing):
            bench.first.volume_clone(absent, "", bench.ref("copy"), full_copy=True)
        assert bench.names() == []

    def test_deleting_an_absent_volume_is_success(self, bench: Workbench) -> None:
        assert bench.first.volume_delete(bench.ref("nothing"))

    def test_a_deleted_volume_is_gone(self, bench: Workbench) -> None:
        volume = bench.make("web1")
        assert bench.first.volume_delete(volume)
        assert bench.first.volume_delete(volume)
        assert bench.names() == []
        with pytest.raises(ObjectMissing):
            bench.first.volume_info(volume)

    def test_the_list_has_every_volume_as_its_info_says(self, bench: Workbench) -> None:
        for number in range(25):
            bench.make(f"disk-{number}", (number + 1) * MIB)
        listed = {info.name: info for info in bench.first.volume_list(bench.pool)}
        assert len(listed) == 25
        assert all(listed[name] == bench.first.volume_info(bench.ref(name)) for name in listed)

    def test_a_volume_grows_and_keeps_its_contents(self, bench: Workbench) -> None:
        volume = bench.make("web1", contents=b"contents")
        assert bench.first.volume_resize(volume, 9 * MIB)
        assert bench.first.volume_resize(volume, 9 * MIB)
        assert bench.info(volume).size_bytes == 9 * MIB
        assert bench.head(volume) == b"contents"
        bench.backend.write(volume, 9 * MIB - 8, b"the end.")
        assert bench.backend.read(volume, 9 * MIB - 8, 8) == b"the end."

    def test_a_volume_does_not_shrink(self, bench: Workbench) -> None:
        volume = bench.make("web1")
        with pytest.raises(DriverError) as caught:
            bench.first.volume_resize(volume, MIB)
        assert not caught.value.retryable
        assert bench.info(volume).size_bytes == 4 * MIB

    def test_a_renamed_volume_keeps_its_contents(self, bench: Workbench) -> None:
        volume = bench.make("web1", contents=b"contents")
        assert bench.first.volume_rename(volume, "web2")
        assert bench.first.volume_rename(volume, "web2")
        assert bench.names() == ["web2"]
        assert bench.head(bench.ref("web2")) == b"contents"

    def test_a_volume_is_not_renamed_over_another(self, bench: Workbench) -> None:
        bench.make("web1", contents=b"first")
        bench.make("web2", contents=b"second")
        with pytest.raises(ObjectExists):
            bench.first.volume_rename(bench.ref("web1"), "web2")
        assert bench.head(bench.ref("web1"), 5) == b"first"
        assert bench.head(bench.ref("web2"), 6) == b"second"

    def test_a_full_copy_stands_alone(self, bench: Workbench) -> None:
        source = bench.make("web1", contents=b"original")
        copy = bench.ref("copy")
        assert bench.first.volume_clone(source, "", copy, full_copy=True)
        assert bench.first.volume_clone(source, "", copy, full_copy=True)
        assert bench.info(copy).parent == ""
        bench.backend.write(source, 0, b"changed!")
        bench.first.volume_delete(source)
        assert bench.head(copy) == b"original"
        assert bench.info(copy).size_bytes == 4 * MIB

    def test_a_clone_does_not_replace_another_volume(self, bench: Workbench) -> None:
        source = bench.make("web1", contents=b"original")
        other = bench.make("web2", contents=b"precious")
        with pytest.raises(ObjectExists):
            bench.first.volume_clone(source, "", other, full_copy=True)
        assert bench.head(other) == b"precious"

    def test_a_clone_shares_blocks_and_protects_its_source(self, bench: Workbench) -> None:
        source, clone = bench.make("web1", contents=b"original"), bench.ref("clone")
        if not bench.capabilities.clones:
            with pytest.raises(Unsupported):
                bench.first.volume_clone(source, "", clone, full_copy=False)
            return
        assert bench.first.volume_clone(source, "", clone, full_copy=False)
        assert bench.first.volume_clone(source, "", clone, full_copy=False)
        assert bench.info(clone).parent.split("@")[0] == "web1"
        bench.backend.write(source, 0, b"changed!")
        assert bench.head(clone) == b"original"
        bench.backend.write(clone, 4, b"-own")
        assert (bench.head(source), bench.head(clone)) == (b"changed!", b"orig-own")
        with pytest.raises(ObjectBusy):
            bench.first.volume_delete(source)
        assert bench.first.volume_delete(clone)
        assert bench.first.volume_delete(source)
        assert bench.names() == []

    def test_a_clone_outlives_the_renaming_of_its_source(self, bench: Workbench) -> None:
        if not bench.capabilities.clones:
            return
        source, clone = bench.make("web1", contents=b"original"), bench.ref("clone")
        bench.first.volume_clone(source, "", clone, full_copy=False)
        bench.first.volume_rename(source, "renamed")
        assert bench.info(clone).parent.split("@")[0] == "renamed"
        assert bench.head(clone) == b"original"
        with pytest.raises(ObjectBusy):
            bench.first.volume_delete(bench.ref("renamed"))

    def test_different_volumes_can_be_worked_on_at_the_same_time(self, bench: Workbench) -> None:
        def live(number: int) -> bool:
            driver = bench.first if number % 2 else bench.second
            if not bench.capabilities.shared:
                driver = bench.first
            name = f"disk-{number}"
            for size in (1, 2, 3):
                driver.volume_create(bench.ref(name), size * MIB, "")
                driver.volume_resize(bench.ref(name), (size + 1) * MIB)
                driver.volume_rename(bench.ref(name), f"{name}-renamed")
                driver.volume_delete(bench.ref(f"{name}-renamed"))
            return driver.volume_create(bench.ref(name), MIB, "")

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(live, range(8)))
        assert bench.names() == [f"disk-{number}" for number in range(8)]

    def test_a_driver_can_be_closed_twice(self, bench: Workbench) -> None:
        driver = bench.backend.driver("node3")
        assert driver.storage_close()
        assert driver.storage_close()

    def test_no_secret_is_seen_in_the_driver(self, bench: Workbench) -> None:
        shown = f"{bench.first!r} {bench.first.__dict__!r} {bench.first.node_identity()!r}"
        assert not [secret for secret in bench.backend.secrets if secret in shown]
