"""On a file system that shares blocks between files, snapshots are instant also while a VM writes."""

import subprocess

import pytest

from pvc_core.plugin import ObjectBusy

MIB = 1024 * 1024
VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"


@pytest.fixture
def xfs_site(tmp_path, make_site):
    """Return a site whose pool is a mounted XFS."""
    image = tmp_path / "xfs.img"
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    site = make_site(tmp_path)
    subprocess.run(["mount", "-o", "loop", image, site.root], check=True)
    site.pool.parameters["mounted"] = True
    site.driver().pool_ensure(site.pool)
    yield site
    subprocess.run(["umount", site.root], check=True)


@pytest.mark.real
@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_a_volume_in_use_is_snapshotted_in_place(xfs_site, format_):
    site, driver, volume = xfs_site, xfs_site.driver(), xfs_site.ref("web1")
    driver.volume_create(volume, 16 * MIB, format_)
    site.write("web1", b"before")
    attached = driver.disk_attach(volume, VM, epoch=1, incoming=False)
    driver.snapshot_create(volume, "s1")
    site.write("web1", b"after!")
    driver.volume_resize(volume, 32 * MIB)
    driver.snapshot_create(volume, "s2")
    assert driver.disk_attach(volume, VM, epoch=1, incoming=False) == attached
    driver.volume_clone(volume, "s1", site.ref("copy"), full_copy=True)
    assert site.head("copy", 6) == b"before"
    driver.disk_detach(volume, VM)
    driver.snapshot_rollback(volume, "s1", lambda _: False)
    assert site.head("web1", 6) == b"before"
    assert driver.volume_info(volume).size_bytes == 16 * MIB
    driver.snapshot_rollback(volume, "s2", lambda _: False)
    assert site.head("web1", 6) == b"after!"
    driver.snapshot_delete(volume, "s1")
    driver.snapshot_delete(volume, "s2")
    assert site.head("web1", 6) == b"after!"
    assert site.leftovers() == []


def test_elsewhere_a_volume_in_use_is_not_snapshotted(site):
    driver, volume = site.driver(), site.ref("web1")
    driver.volume_create(volume, MIB, "")
    driver.disk_attach(volume, VM, epoch=1, incoming=False)
    with pytest.raises(ObjectBusy, match="stop the VM to take a snapshot"):
        driver.snapshot_create(volume, "s1")
    assert driver.volume_info(volume).snapshots == ()
    assert site.leftovers() == []


def test_merged_layers_give_a_raw_volume_its_raw_image_back(site):
    driver, volume = site.driver(), site.ref("web1")
    driver.volume_create(volume, MIB, "")
    site.write("web1", b"before")
    driver.snapshot_create(volume, "s1")
    assert driver.disk_attach(volume, VM, epoch=1, incoming=False).format == "qcow2"
    driver.disk_detach(volume, VM)
    site.write("web1", b"after!")
    driver.snapshot_delete(volume, "s1")
    assert driver.disk_attach(volume, VM, epoch=2, incoming=False).format == "raw"
    assert len(site.files()) == 1
    assert site.head("web1", 6) == b"after!"


def test_layers_of_a_volume_in_use_are_merged_later(site):
    driver, volume = site.driver(), site.ref("web1")
    driver.volume_create(volume, MIB, "")
    for name in ("s1", "s2"):
        driver.snapshot_create(volume, name)
    driver.disk_attach(volume, VM, epoch=1, incoming=False)
    driver.snapshot_delete(volume, "s1")
    assert [s.name for s in driver.volume_info(volume).snapshots] == ["s2"]
    assert len(site.files()) == 3
    driver.disk_detach(volume, VM)
    driver.snapshot_delete(volume, "s2")
    assert len(site.files()) == 1
