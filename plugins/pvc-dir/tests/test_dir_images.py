"""Image files of other hypervisors, and images that must not be taken in."""

import subprocess

import pytest

from pvc_core.plugin import DriverError, ObjectBusy, ObjectMissing
from pvc_core.plugin.specs.storage import Cancelled
from pvc_dir import volumes

MIB = 1024 * 1024
VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"


def _never(_done: float) -> bool:
    return False


def _image(site, format_, *options):
    raw = site.directory / "raw"
    raw.write_bytes(b"contents".ljust(6 * MIB, b"\0"))
    path = site.directory / f"disk.{format_}"
    subprocess.run(["qemu-img", "convert", "-q", "-O", format_, *options, raw, path], check=True)
    return path


@pytest.mark.parametrize("format_", ["raw", "qcow2", "vmdk", "vdi", "vpc"])
def test_every_import_format_is_read(site, format_):
    options = ("-o", "force_size=on") if format_ == "vpc" else ()
    site.driver().volume_import(site.ref("web1"), str(_image(site, format_, *options)), format_, _never)
    assert site.driver().volume_info(site.ref("web1")).size_bytes == 6 * MIB
    assert site.head("web1", 8) == b"contents"


@pytest.mark.parametrize("format_", ["raw", "qcow2", "vmdk", "vdi", "vpc"])
def test_every_export_comes_back_the_same(site, format_):
    driver, target = site.driver(), site.directory / "out"
    driver.volume_create(site.ref("web1"), 6 * MIB, "")
    site.write("web1", b"contents")
    driver.volume_export(site.ref("web1"), "", str(target), format_, _never)
    driver.volume_import(site.ref("web2"), str(target), format_, _never)
    assert driver.volume_info(site.ref("web2")).size_bytes == 6 * MIB
    assert site.head("web2", 8) == b"contents"


def test_an_imported_image_is_sparse(site):
    driver = site.driver()
    image = site.directory / "big.raw"
    with image.open("wb") as file:
        file.truncate(1024 * MIB)
        file.write(b"contents")
    driver.volume_import(site.ref("web1"), str(image), "raw", _never)
    assert driver.volume_info(site.ref("web1")).used_bytes < MIB


def test_an_image_with_a_backing_file_is_refused(site):
    secret = site.directory / "shadow"
    secret.write_bytes(b"root:secret".ljust(MIB, b"\0"))
    image = site.directory / "evil.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, image], check=True)
    with pytest.raises(DriverError, match="refers to other files") as caught:
        site.driver().volume_import(site.ref("web1"), str(image), "qcow2", _never)
    assert "shadow" in str(caught.value)
    assert site.leftovers() == []


def test_an_image_with_a_data_file_is_refused(site):
    data, image = site.directory / "data", site.directory / "evil.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data},data_file_raw=on", image, "1M"], check=True
    )
    with pytest.raises(DriverError, match="refers to other files"):
        site.driver().volume_import(site.ref("web1"), str(image), "qcow2", _never)


def test_a_vmdk_that_names_other_files_is_refused(site):
    image = _image(site, "vmdk", "-o", "subformat=monolithicFlat")
    with pytest.raises(DriverError, match="refers to other files"):
        site.driver().volume_import(site.ref("web1"), str(image), "vmdk", _never)
    assert site.leftovers() == []


def _sealed(image):
    """Make an image with LUKS.  qemu-img measures the processor first, which fails now and then on a busy machine."""
    options = [
        "--object",
        "secret,id=s,data=abc",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
    ]
    for _ in range(20):
        made = subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *options, image, "1M"],
            check=False,
            capture_output=True,
            text=True,
        )
        if made.returncode == 0:
            return
        assert "accurate CPU usage" in made.stderr
    pytest.fail("qemu-img could not measure the processor in 20 attempts")


def test_an_encrypted_image_is_refused(site):
    image = site.directory / "sealed.qcow2"
    _sealed(image)
    with pytest.raises(DriverError):
        site.driver().volume_import(site.ref("web1"), str(image), "qcow2", _never)
    assert site.leftovers() == []


@pytest.mark.parametrize("path", ["image.raw", "/dev/null", "/"])
def test_only_regular_files_by_absolute_path_are_taken(site, path):
    with pytest.raises(DriverError, match=r"absolute path|regular file"):
        site.driver().volume_import(site.ref("web1"), path, "raw", _never)


def test_an_import_that_is_cancelled_halfway_leaves_nothing(site):
    image = site.directory / "random"
    with image.open("wb") as file:
        for _ in range(64):
            file.write(bytes(range(256)) * 4096)
    calls = []

    def stop(done: float) -> bool:
        calls.append(done)
        return len(calls) > 1

    with pytest.raises(Cancelled):
        site.driver().volume_import(site.ref("web1"), str(image), "raw", stop)
    assert site.leftovers() == []


def test_a_progress_that_raises_leaves_nothing(site):
    def fail(_done: float) -> bool:
        raise RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"):
        site.driver().volume_import(site.ref("web1"), str(_image(site, "raw")), "raw", fail)
    assert site.leftovers() == []


def test_a_volume_in_use_is_exported_by_a_snapshot_only(site):
    driver, volume = site.driver(), site.ref("web1")
    driver.volume_create(volume, MIB, "")
    site.write("web1", b"kept")
    driver.snapshot_create(volume, "s1")
    driver.disk_attach(volume, VM, epoch=1, incoming=False)
    with pytest.raises(ObjectBusy, match="export a snapshot of it"):
        driver.volume_export(volume, "", str(site.directory / "out"), "raw", _never)
    driver.volume_export(volume, "s1", str(site.directory / "out"), "raw", _never)
    assert (site.directory / "out").read_bytes()[:4] == b"kept"


def test_a_guest_that_uses_the_image_keeps_qemu_img_out(site):
    """QEMU's own image locks are the second barrier under ours."""
    driver, volume = site.driver(), site.ref("web1")
    driver.volume_create(volume, MIB, "qcow2")
    path, _ = site.image("web1")
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as guest:
        assert guest.stdin is not None
        assert guest.stdout is not None
        guest.stdin.write(b"write 0 512\n")
        guest.stdin.flush()
        guest.stdout.readline()
        with pytest.raises(DriverError, match="lock"):
            driver.volume_resize(volume, 2 * MIB)
        guest.stdin.close()
    driver.volume_resize(volume, 4 * MIB)
    assert driver.volume_info(volume).size_bytes == 4 * MIB


def test_a_qcow2_volume_grown_in_use_is_grown_at_the_next_attach(site):
    driver, volume = site.driver(), site.ref("web1")
    driver.volume_create(volume, MIB, "qcow2")
    driver.disk_attach(volume, VM, epoch=1, incoming=False)
    driver.volume_resize(volume, 8 * MIB)
    # Only QEMU may grow the image now; it never does, because the guest ends.
    assert site.state("web1").layers[0].size_bytes == MIB
    driver.disk_detach(volume, VM)
    driver.disk_attach(volume, VM, epoch=2, incoming=False)
    path, _ = site.image("web1")
    assert (
        b'"virtual-size": 8388608'
        in subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True).stdout
    )


def test_a_lost_image_is_said_to_be_lost(site):
    driver, volume = site.driver(), site.ref("web1")
    driver.volume_create(volume, MIB, "")
    site.image("web1")[0].unlink()
    with pytest.raises(ObjectMissing, match="restore it from a backup"):
        driver.disk_attach(volume, VM, epoch=1, incoming=False)


def test_an_attempt_that_was_overtaken_cannot_commit(site):
    """A node that lost its lease goes on copying while another one makes the same volume."""
    here = site.here()
    layer = volumes.new_layer("raw", MIB)
    with pytest.raises(ObjectBusy, match="took over"), volumes.building(here, "web1", "raw", layer) as late:
        late.path().write_bytes(b"late".ljust(MIB, b"\0"))
        site.driver("node2").volume_create(site.ref("web1"), MIB, "")
        late.commit(size_bytes=MIB)
    assert site.head("web1", 4) == bytes(4)
    assert site.leftovers() == []
