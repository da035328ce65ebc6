"""Image files, through qemu-img: always with the format named, never guessed from the contents.

Calls that a guest could race against are refused by QEMU's own image locks, which stay on.
"""

import contextlib
import fcntl
import json
import os
import re
import struct
from pathlib import Path
from typing import Any, Final

import msgspec

from pvc_core.plugin import Cancelled, DriverError, Progress, Run
from pvc_core.plugin.process import watch
from pvc_dir.versions import sync_directory

_FICLONE: Final = 0x40049409
"""ioctl_ficlone(2)."""
_QCOW2_HEAD: Final = struct.Struct(">4s20xQ")
"""Magic and size of a qcow2 image: docs/interop/qcow2.txt of QEMU."""
_QUICK_S: Final = 50.0
_LONG_S: Final = 7 * 86400.0
"""Bound of conversions; the task's own time limit ends them through ``progress``."""
_PERCENT: Final = re.compile(r"\((\d+(?:\.\d+)?)/100%\)")


class ImageInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What an image file says of itself."""

    format: str
    size_bytes: int
    foreign: tuple[str, ...] = ()
    """Other files that it refers to."""
    encrypted: bool = False


class Images:
    """qemu-img of this node.  Stateless; may be used from any thread."""

    def __init__(self, program: str, run: Run) -> None:
        self._program: Final = program
        self._run: Final = run

    def version(self) -> str:
        """Return the first line that the program says of itself."""
        return self._run([self._program, "--version"], deadline_s=10.0).check().stdout.split("\n", 1)[0]

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

    def info(self, path: Path, format_: str) -> ImageInfo:
        """Return what an image of this format says; raise DriverError when it is none."""
        done = self._run(
            [self._program, "info", "--output=json", "-f", format_, str(path)], deadline_s=_QUICK_S
        ).check()
        return read_info(str(path), json.loads(done.stdout))

    def convert(self, source: Path, source_format: str, target: Path, target_format: str, progress: Progress) -> None:
        """Copy an image into a new file, sparsely, and make it durable.

        Raises Cancelled when ``progress`` says so; the target is then, as after any failure, removed.
        """
        # Without force_size a VHD's size is rounded up to a whole number of its imaginary cylinders.
        options = ["-o", "force_size=on"] if target_format == "vpc" else []
        argv = [self._program, "convert", "-p", "-f", source_format, "-O", target_format, *options]
        argv += [str(source), str(target)]
        last = 0.0

        def heard(text: str) -> bool:
            nonlocal last
            percents = _PERCENT.findall(text)
            last = max(last, float(percents[-1]) / 100.0) if percents else last
            return progress(last)

        try:
            done = None if progress(0.0) else watch(argv, deadline_s=_LONG_S, heard=heard)
            if done is None or (done.returncode == 0 and progress(1.0)):
                raise Cancelled("the copy was stopped, and removed")
            done.check()
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

    def _do(self, *arguments: str) -> None:
        self._run([self._program, *arguments], deadline_s=_QUICK_S).check()


def read_info(path: str, answer: dict[str, Any]) -> ImageInfo:
    """Return the parts of qemu-img's JSON that decide whether an image may be taken in."""
    specific = answer.get("format-specific", {}).get("data", {})
    foreign = [answer[key] for key in ("backing-filename", "full-backing-filename") if key in answer]
    foreign += [specific["data-file"]] if "data-file" in specific else []
    foreign += [extent["filename"] for extent in specific.get("extents", ()) if extent.get("filename") != path]
    return ImageInfo(
        format=answer["format"],
        size_bytes=answer["virtual-size"],
        foreign=tuple(dict.fromkeys(foreign)),
        encrypted=bool(answer.get("encrypted")),
    )


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


def keep(path: Path) -> None:
    """Close a new image to other users, and make it durable.  libvirt gives it to QEMU's user when a guest starts."""
    path.chmod(0o600)
    sync(path)


def sync(path: Path) -> None:
    """Make a file and its name survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def check_importable(path: Path, format_: str, info: ImageInfo) -> None:
    """Raise DriverError when taking an image in would take in other files too, or its contents are sealed."""
    if info.foreign:
        raise DriverError(
            f"{path} refers to other files ({', '.join(info.foreign)}); make one file of it first: "
            f"qemu-img convert -f {format_} -O qcow2 {path} single.qcow2",
            retryable=False,
        )
    if info.encrypted:
        raise DriverError(f"{path} is encrypted; decrypt it with qemu-img convert first", retryable=False)
    if info.size_bytes <= 0:
        raise DriverError(f"{path} is empty", retryable=False)
