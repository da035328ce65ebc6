"""Archives in cpio's "newc" format, as the kernel reads for its first root file system.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

import stat
from typing import Final

_TRAILER: Final = "TRAILER!!!"


class Archive:
    """An archive that is being written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._entries = 0

    def directory(self, name: str) -> None:
        """Add a directory; its parents come first."""
        self._add(name, stat.S_IFDIR | 0o755, b"")

    def file(self, name: str, content: bytes, *, executable: bool = False) -> None:
        """Add a file."""
        self._add(name, stat.S_IFREG | (0o755 if executable else 0o644), content)

    def finish(self) -> bytes:
        """Return the whole archive."""
        self._add(_TRAILER, 0, b"")
        return b"".join(self._parts)

    def _add(self, name: str, mode: int, content: bytes) -> None:
        self._entries += 1
        path = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device (2), special device (2), length of the name, checksum
        fields = (self._entries, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        header = b"070701" + b"".join(f"{field:08X}".encode() for field in fields)
        self._parts += [_padded(header + path), _padded(content)]


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
