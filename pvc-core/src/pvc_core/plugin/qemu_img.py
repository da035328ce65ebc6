"""Disk images in files, through qemu-img: always with the format named, never guessed from the contents.

Calls that a guest could race against are refused by QEMU's own image locks, which stay on.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from pvc_core.plugin.context import Run
from pvc_core.plugin.errors import DriverError, ObjectExists
from pvc_core.plugin.process import watch
from pvc_core.plugin.specs.storage import Cancelled, Progress

FILE_FORMATS: Final = ("raw", "qcow2", "vmdk", "vdi", "vpc")
"""What qemu-img reads and writes, under its names: vpc is VHD."""

QUICK_S: Final = 50.0
"""Deadline of calls that copy nothing."""
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


class QemuImg:
    """The program on this node.  Stateless; may be used from any thread."""

    def __init__(self, program: str, run: Run) -> None:
        self._program: Final = program
        self._run: Final = run

    def version(self) -> str:
        """Return the first line that the program says of itself."""
        return self._run([self._program, "--version"], deadline_s=10.0).check().stdout.split("\n", 1)[0]

    def info(self, path: Path, format_: str) -> ImageInfo:
        """Return what an image of this format says; raise DriverError when it is none."""
        done = self._run([self._program, "info", "--output=json", "-f", format_, str(path)], deadline_s=QUICK_S).check()
        return read_info(str(path), json.loads(done.stdout))

    def copy(
        self,
        source: str,
        source_format: str,
        target: str,
        target_format: str,
        progress: Progress,
        *,
        existing: bool = False,
    ) -> None:
        """Copy an image, sparsely, into another one, a file's path or whatever else QEMU opens.

        ``existing``: the target is there, of the right size, and reads as zeros.  Raises Cancelled when ``progress``
        says so; what is half written is left to the caller then, as after any failure.
        """
        # Without force_size a VHD's size is rounded up to a whole number of its imaginary cylinders.
        options = ["-o", "force_size=on"] if target_format == "vpc" else []
        options += ["-n", "--target-is-zero"] if existing else []
        argv = [self._program, "convert", "-p", "-f", source_format, "-O", target_format, *options, source, target]
        last = 0.0

        def heard(text: str) -> bool:
            nonlocal last
            percents = _PERCENT.findall(text)
            last = max(last, float(percents[-1]) / 100.0) if percents else last
            return progress(last)

        done = None if progress(0.0) else watch(argv, deadline_s=_LONG_S, heard=heard)
        if done is None or (done.returncode == 0 and progress(1.0)):
            raise Cancelled("the copy was stopped, and removed")
        done.check()

    def _do(self, *arguments: str) -> None:
        self._run([self._program, *arguments], deadline_s=QUICK_S).check()


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


def check_source(source: Path) -> None:
    """Raise DriverError unless it is a file on this node that can be taken in."""
    if not source.is_absolute():
        raise DriverError(f"{source} is not an absolute path", retryable=False)
    try:
        mode = source.stat().st_mode
    except FileNotFoundError:
        raise DriverError(f"there is no file {source} on this node", retryable=False) from None
    if not stat.S_ISREG(mode):
        raise DriverError(f"{source} is not a regular file", retryable=False)


def check_format(format_: str) -> None:
    """Raise DriverError when images of this format are neither read nor written."""
    if format_ not in FILE_FORMATS:
        raise DriverError(f"image format {format_!r} is not one of {', '.join(FILE_FORMATS)}", retryable=False)


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


@contextmanager
def new_file(path: str) -> Iterator[Path]:
    """Give a path to write a file to that appears as ``path``, closed to other users, when it is complete.

    Raises DriverError when it cannot be made there, ObjectExists when there is something of this name already.
    """
    target = Path(path)
    if not target.is_absolute() or not target.parent.is_dir():
        raise DriverError(f"{path}: give an absolute path in a directory of this node that exists", retryable=False)
    if os.path.lexists(target):
        raise ObjectExists(f"{path} exists already; give another name")
    partial = target.with_name(f"{target.name}.part")
    try:
        yield partial
        keep(partial)
        os.link(partial, target)
    except FileExistsError:
        raise ObjectExists(f"{path} was made by somebody else meanwhile; give another name") from None
    finally:
        partial.unlink(missing_ok=True)
    sync(target)


def keep(path: Path) -> None:
    """Close a new file to other users, and make it durable."""
    path.chmod(0o600)
    sync(path)


def sync(path: Path) -> None:
    """Make a file and its name survive a power cut."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
