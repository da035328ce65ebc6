"""Image files of a pool.  libvirt gives a new one, closed to other users, to QEMU's user when a guest starts."""

import contextlib
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from pvc_core.plugin import DriverError, Progress
from pvc_core.plugin.qemu_img import QemuImg, keep, sync

_FICLONE: Final = 0x40049409
"""ioctl_ficlone(2)."""
_QCOW2_HEAD: Final = struct.Struct(">4s20xQ")
"""Magic and size of a qcow2 image: docs/interop/qcow2.txt of QEMU."""


class Images(QemuImg):
    """qemu-img of this node, on the image files of pools.  Stateless; may be used from any thread."""

    def create(self, path: Path, format_: str, size_bytes: int) -> None:
        """Create an empty sparse image; the file must not exist."""
        if format_ == "raw":
            with path.open("xb") as file:
                file.truncate(size_bytes)
        else:
            self._do("create", "-q", "-f", format_, str(path), str(size_bytes))
        keep(path)

    def overlay(self, path: Path, backing: str, backing_format: str, size_bytes: int) -> None:
        """Create an empty qcow2 image over a file of the same directory."""
        # -u: the backing file is not opened, which another node may have open.
        self._do(
            "create", "-q", "-u", "-f", "qcow2", "-F", backing_format, "-b", backing, str(path), str(size_bytes)
        )  # fmt: skip
        keep(path)

    def resize(self, path: Path, format_: str, size_bytes: int) -> None:
        """Grow an image that no guest uses."""
        if format_ == "raw":
            with path.open("r+b") as file:
                file.truncate(max(size_bytes, os.fstat(file.fileno()).st_size))
        else:
            self._do("resize", "-q", "-f", format_, str(path), str(size_bytes))
        sync(path)

    def convert(self, source: Path, source_format: str, target: Path, target_format: str, progress: Progress) -> None:
        """Copy an image into a new file, sparsely, and make it durable.

        Raises Cancelled when ``progress`` says so; the target is then, as after any failure, removed.
        """
        try:
            self.copy(str(source), source_format, str(target), target_format, progress)
            # qemu-img writes its target without flushing it (-t unsafe is its default).
            keep(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def commit(self, path: Path, deadline_s: float) -> None:
        """Write what a qcow2 image holds into the one below it, which thereby reads the same."""
        self._run(
            [self._program, "commit", "-q", "-f", "qcow2", "-t", "writeback", "-d", str(path)], deadline_s=deadline_s
        ).check()

    def point_to(self, path: Path, backing: str, backing_format: str) -> None:
        """Make a qcow2 image rest on another file, which must read the same as its present one."""
        self._do("rebase", "-q", "-u", "-f", "qcow2", "-F", backing_format, "-b", backing, str(path))
        sync(path)


def image_size(path: Path, format_: str) -> int:
    """Return the size of the disk in an image of ours, also while a guest uses it."""
    with path.open("rb") as file:
        if format_ == "raw":
            return os.fstat(file.fileno()).st_size
        head = file.read(_QCOW2_HEAD.size)
    magic, size = _QCOW2_HEAD.unpack(head.ljust(_QCOW2_HEAD.size, b"\0"))
    if magic != b"QFI\xfb":
        raise DriverError(f"{path} is not a qcow2 image any more; restore it from a backup", retryable=False)
    return int(size)


def reflink(source: Path, target: Path) -> bool:
    """Make an instant copy that shares its blocks; False where the file system cannot (ext4, NFS before 4.2)."""
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
        except OSError:
            # The kernel has a different errno for each reason (EOPNOTSUPP, EINVAL, ENOTTY, EXDEV), and all mean "copy
            # by other means", which then meets and tells whatever else may be wrong.
            with contextlib.suppress(FileNotFoundError):
                target.unlink()
            return False
    keep(target)
    return True
