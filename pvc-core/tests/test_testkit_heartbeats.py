"""The proof that a guest did not run twice: that the guest writes what it should, and that two copies would be seen."""

import subprocess
from contextlib import contextmanager

import pytest

from pvc_core.testkit.heartbeat_guest import heartbeat_image
from pvc_core.testkit.heartbeats import Beat, Life, RanTwice, lives, read_beats
from pvc_core.testkit.waiting import eventually

A, B = "063136-0787A28D", "063145-7233C332"


def beats(boot, numbers, host="hv1"):
    return [Beat(number, boot, host) for number in numbers]


def test_boots_one_after_the_other_are_told_with_their_hosts():
    written = [*beats(A, (1, 2, 3)), *beats(B, (1, 2), "hv2")]
    assert lives(written) == [Life(A, ("hv1",), 3), Life(B, ("hv2",), 2)]


def test_live_migration_is_one_life_on_two_hosts():
    assert lives([*beats(A, (1, 2)), *beats(A, (3,), "hv2")]) == [Life(A, ("hv1", "hv2"), 3)]


@pytest.mark.parametrize(
    "written",
    [
        [*beats(A, (1, 2)), *beats(B, (1,), "hv2"), *beats(A, (3,))],
        [*beats(A, (1, 2, 4))],
        [*beats(A, (1, 2)), *beats(A, (2,), "hv2")],
        [*beats(A, (1, 2)), *beats(B, (2, 3), "hv2")],
    ],
    ids=["records of two boots are mixed", "a record was overwritten", "a number came twice", "the first one is gone"],
)
def test_two_copies_at_once_are_seen(written):
    with pytest.raises(RanTwice):
        lives(written)


@contextmanager
def emulator(disk, host):
    """Run the guest with the lock on its disk lifted, as its overlay has it lifted."""
    argv = ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-m", "16", "-nodefaults", "-display", "none"]
    argv += ["-drive", f"if=none,id=disk,file={disk},format=raw,cache=none"]
    argv += ["-device", "virtio-blk-pci,drive=disk,bootindex=1,share-rw=on"]
    argv += ["-fw_cfg", f"name=opt/pvc/host,string={host}"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(heartbeat_image())
    return path


def until(disk, count):
    eventually(lambda: len(read_beats(disk)) >= count, f"{count} heartbeats")


@pytest.mark.real
def test_guest_goes_on_behind_what_an_earlier_boot_wrote(disk):
    with emulator(disk, "hv1"):
        until(disk, 3)
    first = read_beats(disk)
    with emulator(disk, "hv2"):
        until(disk, len(first) + 3)
    written = read_beats(disk)
    assert written[: len(first)] == first
    assert read_beats(disk, after=len(first)) == written[len(first) :]
    assert [life.hosts for life in lives(written)] == [("hv1",), ("hv2",)]


@pytest.mark.real
def test_two_guests_at_once_are_seen(disk):
    with emulator(disk, "hv1"):
        until(disk, 3)
        with emulator(disk, "hv2"):
            eventually(lambda: {"hv1", "hv2"} <= {b.host for b in read_beats(disk)}, "both write")
            until(disk, len(read_beats(disk)) + 6)
    with pytest.raises(RanTwice):
        lives(read_beats(disk))
