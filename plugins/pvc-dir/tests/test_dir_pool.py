"""What is a pool's directory and what is not: an unmounted file system must never be written to."""

import shutil

import pytest

from pvc_core.plugin import DriverError, NotReady
from pvc_dir.config import DirConfig

VM = "6d0f1c52-3a0c-4a0e-9a53-0d3b1f5b7a01"
MIB = 1024 * 1024


def _unmount(site):
    """Leave an empty directory where the pool was, as an unmounted NFS export does."""
    away = site.directory / "elsewhere"
    site.root.rename(away)
    site.root.mkdir()
    return away


def test_a_missing_directory_is_not_made(bare_site):
    bare_site.root.rmdir()
    with pytest.raises(NotReady, match="make or mount it"):
        bare_site.driver().pool_ensure(bare_site.pool)
    assert not bare_site.root.exists()


def test_a_directory_with_other_files_is_not_taken(bare_site):
    (bare_site.root / "photos").mkdir()
    with pytest.raises(DriverError, match="'photos'") as caught:
        bare_site.driver().pool_ensure(bare_site.pool)
    assert not caught.value.retryable
    assert [path.name for path in bare_site.root.iterdir()] == ["photos"]


def test_what_file_servers_and_mkfs_leave_does_not_matter(bare_site):
    (bare_site.root / "lost+found").mkdir()
    (bare_site.root / ".snapshot").mkdir()
    assert bare_site.driver().pool_ensure(bare_site.pool)


def test_a_pool_is_not_made_again_in_an_unmounted_directory(site):
    away = _unmount(site)
    with pytest.raises(NotReady, match="mounted on this node"):
        site.driver().pool_ensure(site.pool)
    assert list(site.root.iterdir()) == []
    shutil.rmtree(site.root)
    away.rename(site.root)
    assert site.driver().pool_ensure(site.pool)


def test_nothing_is_read_or_written_in_an_unmounted_directory(site):
    driver, volume = site.driver(), site.ref("web1")
    driver.volume_create(volume, MIB, "")
    _unmount(site)
    for call in (
        lambda: driver.pool_usage(site.pool),
        lambda: driver.volume_list(site.pool),
        lambda: driver.volume_info(volume),
        lambda: driver.volume_create(site.ref("web2"), MIB, ""),
        lambda: driver.volume_delete(volume),
        lambda: driver.disk_attach(volume, VM, epoch=1, incoming=False),
        lambda: driver.disk_detach(volume, VM),
        # A node that never saw the pool must not take the empty directory for a new one either.
        lambda: site.driver("node2").pool_usage(site.pool),
    ):
        with pytest.raises(NotReady, match="no marker"):
            call()
    assert list(site.root.iterdir()) == []


def test_attachments_of_an_unmounted_pool_do_not_hide_the_others(site, tmp_path, make_site):
    directory = tmp_path / "second"
    directory.mkdir()
    other = make_site(directory)
    other.directory = site.directory
    driver = site.driver()
    driver.pool_ensure(other.pool)
    for place in (site, other):
        driver.volume_create(place.ref("web1"), MIB, "")
        driver.disk_attach(place.ref("web1"), VM, epoch=1, incoming=False)
    assert len(driver.disk_attachments()) == 2
    _unmount(site)
    assert [found.pool for found in driver.disk_attachments()] == [other.pool.id]


def test_the_directory_of_another_pool_is_refused(site, make_site, tmp_path):
    directory = tmp_path / "other"
    directory.mkdir()
    other = make_site(directory)
    other.root.rmdir()
    site.root.rename(other.root)
    for call in (site.driver().pool_ensure, other.driver().pool_ensure, other.driver().volume_list):
        with pytest.raises(DriverError):
            call(other.pool)


def test_a_damaged_marker_is_said_to_be_damaged(site):
    (site.root / "pvc-pool.json").write_text("{")
    with pytest.raises(DriverError, match=r"pvc-pool\.json is damaged.*restore it"):
        site.driver().volume_list(site.pool)


def test_a_newer_layout_is_refused(site):
    (site.root / "pvc-pool.json").write_text(f'{{"pool": "{site.pool.id}", "layout": 2}}')
    with pytest.raises(DriverError, match="update it"):
        site.driver().volume_list(site.pool)


def test_a_mounted_pool_must_not_be_on_the_root_file_system(bare_site):
    bare_site.pool.parameters["mounted"] = True
    on_root = bare_site.root.stat().st_dev == bare_site.root.parents[len(bare_site.root.parents) - 1].stat().st_dev
    if on_root:
        with pytest.raises(NotReady, match="no file system is mounted"):
            bare_site.driver().pool_ensure(bare_site.pool)
    else:
        assert bare_site.driver().pool_ensure(bare_site.pool)


def test_the_nodes_configuration_says_where_pools_may_be(site):
    config = DirConfig(roots=("/srv",))
    with pytest.raises(DriverError, match=r"plugins\.dir\.roots"):
        site.driver("node2", config).volume_list(site.pool)
    assert site.driver("node2", DirConfig(roots=(str(site.directory),))).volume_list(site.pool) == []


def test_a_deleted_pool_leaves_an_empty_directory(site):
    driver = site.driver()
    driver.volume_create(site.ref("web1"), MIB, "")
    driver.volume_delete(site.ref("web1"))
    driver.pool_delete(site.pool)
    assert list(site.root.iterdir()) == []
    assert driver.pool_ensure(site.pool)


def test_without_qemu_img_the_driver_is_not_ready(site):
    with pytest.raises(NotReady, match="install qemu-utils"):
        site.driver(config=DirConfig(qemu_img="/no/such/qemu-img")).storage_preflight()


def test_names_cannot_leave_the_pool(site):
    for name in ("../web1", "a/b", ".hidden", "", "a" * 64):
        with pytest.raises(Exception, match="not a valid name"):
            site.driver().volume_create(site.ref(name), MIB, "")
    assert site.leftovers() == []


def test_a_full_file_system_is_told_in_its_own_words(site, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "/srv/x")

    monkeypatch.setattr("os.link", full)
    site.driver().volume_create(site.ref("web1"), MIB, "")
    with pytest.raises(DriverError, match="volume 'web1' of pool ssd: No space left on device") as caught:
        site.driver().disk_attach(site.ref("web1"), VM, epoch=1, incoming=False)
    assert caught.value.retryable


def test_other_users_of_a_node_cannot_read_images(site):
    driver = site.driver()
    driver.volume_create(site.ref("web1"), MIB, "")
    driver.volume_create(site.ref("web2"), MIB, "qcow2")
    driver.snapshot_create(site.ref("web1"), "s1")
    driver.volume_clone(site.ref("web2"), "", site.ref("copy"), full_copy=True)
    assert {path.stat().st_mode & 0o777 for path in (site.root / "layers").iterdir()} == {0o600}
    assert (site.root / "layers").stat().st_mode & 0o777 == 0o711
    assert (site.root / "volumes").stat().st_mode & 0o777 == 0o700
