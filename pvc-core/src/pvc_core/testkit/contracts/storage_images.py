"""Storage contract: image files in and out."""

import pytest

from pvc_core.plugin.errors import DriverError, ObjectExists, ObjectMissing, Unsupported
from pvc_core.plugin.specs.storage import Cancelled
from pvc_core.testkit.contracts.storage_backend import MIB, Steps, StorageSuite, Workbench, no_progress


class ImageRules(StorageSuite):
    """Import, export and incremental streams."""

    def test_an_imported_image_becomes_a_volume(self, bench: Workbench) -> None:
        steps, volume = Steps(), bench.ref("web1")
        assert "raw" in bench.capabilities.import_formats
        assert bench.first.volume_import(volume, str(bench.image(b"an image", 6 * MIB)), "raw", steps)
        assert bench.info(volume).size_bytes == 6 * MIB
        assert bench.head(volume) == b"an image"
        assert steps.seen == sorted(steps.seen)
        assert all(0.0 <= done <= 1.0 for done in steps.seen)

    def test_a_cancelled_import_leaves_nothing(self, bench: Workbench) -> None:
        steps, volume = Steps(stop_after=0), bench.ref("web1")
        image = bench.image(b"an image" * MIB, 64 * MIB)
        with pytest.raises(Cancelled):
            bench.first.volume_import(volume, str(image), "raw", steps)
        assert steps.seen
        assert bench.names() == []
        assert image.stat().st_size == 64 * MIB
        bench.make("web1", contents=b"fresh")
        assert bench.head(volume, 5) == b"fresh"

    def test_an_import_does_not_replace_a_volume(self, bench: Workbench) -> None:
        volume = bench.make("web1", contents=b"precious")
        with pytest.raises(ObjectExists):
            bench.first.volume_import(volume, str(bench.image(b"an image")), "raw", no_progress)
        assert bench.head(volume) == b"precious"

    def test_an_image_that_is_not_there_is_refused(self, bench: Workbench) -> None:
        with pytest.raises(DriverError) as caught:
            bench.first.volume_import(bench.ref("web1"), "/no/such/file.raw", "raw", no_progress)
        assert "/no/such/file.raw" in str(caught.value)
        assert bench.names() == []

    def test_an_image_of_another_format_is_refused(self, bench: Workbench) -> None:
        image = bench.image(b"this is not what it claims to be")
        for format_ in (*bench.capabilities.import_formats, "no-such-format"):
            if format_ == "raw":
                continue
            with pytest.raises(DriverError):
                bench.first.volume_import(bench.ref("web1"), str(image), format_, no_progress)
            assert bench.names() == []

    def test_an_exported_volume_can_be_imported_again(self, bench: Workbench) -> None:
        volume = bench.make("web1", contents=b"contents")
        target = bench.directory / "web1.raw"
        if not self.exports:
            with pytest.raises(Unsupported):
                bench.first.volume_export(volume, "", str(target), "raw", no_progress)
            return
        assert bench.first.volume_export(volume, "", str(target), "raw", Steps())
        assert target.stat().st_size == 4 * MIB
        assert bench.first.volume_import(bench.ref("again"), str(target), "raw", no_progress)
        assert bench.head(bench.ref("again")) == b"contents"

    def test_an_export_does_not_replace_a_file(self, bench: Workbench) -> None:
        if not self.exports:
            return
        volume, target = bench.make("web1"), bench.directory / "mine"
        target.write_bytes(b"precious")
        with pytest.raises(ObjectExists):
            bench.first.volume_export(volume, "", str(target), "raw", no_progress)
        assert target.read_bytes() == b"precious"

    def test_a_cancelled_export_leaves_nothing(self, bench: Workbench) -> None:
        if not self.exports:
            return
        volume = bench.make("web1", 64 * MIB)
        bench.backend.write(volume, 0, b"contents" * MIB)
        with pytest.raises(Cancelled):
            bench.first.volume_export(
                volume, "", str(bench.directory / "web1.raw"), "raw", Steps(stop_after=0)
            )  # fmt: skip
        assert list(bench.directory.iterdir()) == []

    def test_a_snapshot_is_exported_as_it_was(self, bench: Workbench) -> None:
        if not (self.exports and bench.capabilities.snapshots):
            return
        volume, target = bench.make("web1", contents=b"before"), bench.directory / "web1.raw"
        bench.first.snapshot_create(volume, "s1")
        bench.backend.write(volume, 0, b"after!")
        bench.first.volume_export(volume, "s1", str(target), "raw", no_progress)
        assert target.read_bytes()[:6] == b"before"
        with pytest.raises(ObjectMissing):
            bench.first.volume_export(volume, "s2", str(bench.directory / "other"), "raw", no_progress)

    def test_incremental_streams_carry_what_changed(self, bench: Workbench) -> None:
        volume, full, step = bench.make("web1", contents=b"state 1"), bench.directory / "full", bench.directory / "step"
        if not bench.capabilities.streams:
            with pytest.raises(Unsupported):
                bench.first.volume_diff_export(volume, "", "s1", str(full), no_progress)
            with pytest.raises(Unsupported):
                bench.first.volume_diff_import(volume, str(full), no_progress)
            return
        bench.first.snapshot_create(volume, "s1")
        bench.first.volume_diff_export(volume, "", "s1", str(full), no_progress)
        bench.backend.write(volume, 0, b"state 2")
        bench.first.snapshot_create(volume, "s2")
        bench.first.volume_diff_export(volume, "s1", "s2", str(step), no_progress)
        copy = bench.make("copy")
        with pytest.raises(DriverError):
            bench.first.volume_diff_import(copy, str(step), no_progress)
        bench.first.volume_diff_import(copy, str(full), no_progress)
        assert bench.head(copy, 7) == b"state 1"
        bench.first.volume_diff_import(copy, str(step), no_progress)
        assert bench.head(copy, 7) == b"state 2"
