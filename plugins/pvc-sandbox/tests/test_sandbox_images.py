"""Guest images and their cache."""

import gzip
import threading

import pytest

from pvc_sandbox.errors import SandboxError
from pvc_sandbox.images.agent import guest_agent
from pvc_sandbox.images.boot_sector import BOOT_MARK, assemble, boot_sector
from pvc_sandbox.images.cache import cached
from pvc_sandbox.images.cpio import Archive
from pvc_sandbox.images.linux import TinyLinux, tiny_linux


def test_boot_sector_is_one_the_bios_starts():
    sector = assemble()
    assert len(sector) == 512
    assert sector[-2:] == b"\x55\xaa"
    message_at = int.from_bytes(sector[12:14], "little") - 0x7C00
    assert sector[message_at:].startswith(BOOT_MARK.encode())


def test_boot_sector_image_is_made_once(tmp_path):
    path = boot_sector(tmp_path)
    made = path.stat()
    assert boot_sector(tmp_path).stat().st_ino == made.st_ino
    assert made.st_size == 1 << 20


def test_failed_build_leaves_nothing_and_the_next_one_works(tmp_path):
    def fail(work):
        (work / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached("thing", fail, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"lock"}
    (tmp_path / ".building-killed").mkdir()
    assert (cached("thing", lambda work: (work / "f").write_text("x"), tmp_path) / "f").read_text() == "x"
    assert {path.name for path in tmp_path.iterdir()} == {"lock", "thing"}


def test_two_who_want_the_same_build_it_once(tmp_path):
    built = []

    def build(work):
        built.append(work)
        (work / "f").write_text("x")

    threads = [threading.Thread(target=cached, args=("thing", build, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_archive_is_in_the_kernels_format():
    archive = Archive()
    archive.directory("bin")
    archive.file("bin/x", b"hello", executable=True)
    names = []
    data, at = archive.finish(), 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + length - 1].decode()
        at += (110 + length + 3) & ~3
        names.append((name, oct(mode), data[at : at + size]))
        at += (size + 3) & ~3
    assert names == [
        ("bin", "0o40755", b""),
        ("bin/x", "0o100755", b"hello"),
        ("TRAILER!!!", "0o0", b""),
    ]


@pytest.mark.real
def test_the_guest_has_an_agent_with_all_its_libraries_when_that_is_wanted():
    plain, able = (gzip.decompress(tiny_linux(agent=agent).initrd.read_bytes()) for agent in (False, True))
    for name in (b"usr/sbin/qemu-ga\0", b"lib/x86_64-linux-gnu/libglib-2.0.so.0\0"):
        assert name not in plain
        assert name in able


def test_an_agent_whose_libraries_are_not_here_is_refused(tmp_path):
    (tmp_path / "agent-1").mkdir()
    program = tmp_path / "agent-1" / "qemu-ga"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(SandboxError, match="install the package qemu-guest-agent once"):
        guest_agent(tmp_path)


def test_kernel_command_line(tmp_path):
    linux = TinyLinux(kernel=tmp_path / "k", initrd=tmp_path / "i")
    assert linux.command_line(ip="10.0.0.1/24", disk=1) == "console=ttyS0 quiet panic=-1 ip=10.0.0.1/24 disk=1"
