"""A guest whose disk proves where it executes, and that it never does so twice at once."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from pvc_core.testkit.heartbeat_guest import HOST_OVERLAY, MEMORY_MIB, OVERLAY, heartbeat_image
from pvc_core.testkit.heartbeats import Beat, Life, lives, read_beats
from pvc_core.testkit.lan import entered
from pvc_sandbox import ceph
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import write_atomically
from pvc_sandbox.sandbox import Sandbox
from pvc_sandbox.waiting import wait_until

_START_DEADLINE_S: Final = 60.0
_EXPORT_S: Final = 60.0
_CEPH: Final = "ceph-rbd"

Disk = Callable[[], Path]
"""Returns a file with the contents of a guest's disk now."""


class HeartbeatGuest:
    """A VM of a sandbox that writes heartbeats (``pvc_core.testkit.heartbeats``) on its disk, 6 in a second."""

    def __init__(self, name: str, id_: str, disk: Disk) -> None:
        self.name = name
        self.id = id_
        self._disk = disk

    def beats(self, *, after: int = 0) -> list[Beat]:
        """Return the heartbeats, but for the first ``after``."""
        return read_beats(self._disk(), after=after)

    def lives(self) -> list[Life]:
        """Return what it did, boot by boot.  Raises RanTwice when two copies of it executed at the same time."""
        return lives(self.beats())

    def wait_beat(self, *, after: int = 0, deadline_s: float = _START_DEADLINE_S) -> Beat:
        """Wait for a heartbeat behind the first ``after``; return the first.  Raises SandboxError."""
        found = wait_until(f"a sign of life of {self.name}", lambda: self.beats(after=after), deadline_s=deadline_s)
        return found[0]


def start_heartbeat_guest(sandbox: Sandbox, pool: str, name: str, *, node: str, **fields: Any) -> HeartbeatGuest:
    """Make such a VM with a volume of its name in a pool, and return when it executes on ``node``.

    On Ceph nothing but PVC keeps it from running twice; with driver ``dir`` its overlay takes QEMU's own lock from the image.

    ``fields`` are others of its definition.  Raises SandboxError.
    """
    driver = sandbox.pvc.json("storage", "pool", "info", pool)["driver"]
    image = sandbox.shared / "heartbeat.raw"
    write_atomically(image, heartbeat_image())
    sandbox.pvc("storage", "volume", "import", f"{pool}/{name}", str(image))
    definition = {
        "name": name,
        "memory": MEMORY_MIB,
        "disks": [{"pool": pool, "volume": name}],
        "overlay_xml": HOST_OVERLAY if driver == _CEPH else OVERLAY,
        **fields,
    }
    file = sandbox.shared / f"{name}.yml"
    write_atomically(file, yaml.safe_dump(definition, sort_keys=False))
    sandbox.pvc("vm", "define", str(file), "--node", node, "--start")
    id_ = str(sandbox.pvc.json("vm", "info", name)["view"]["id"])
    guest = HeartbeatGuest(name, id_, _image(sandbox, pool, name) if driver == _CEPH else _file(sandbox, node, id_))
    guest.wait_beat()
    return guest


def _file(sandbox: Sandbox, node: str, id_: str) -> Disk:
    listed = sandbox.exec(node, ["virsh", "-q", "domblklist", id_]).check().stdout.split()
    if len(listed) != len(("target", "source")):
        raise SandboxError(f"VM {id_} on {node} should have one disk, a file: {listed}")
    return lambda: Path(listed[1])


def _image(sandbox: Sandbox, pool: str, name: str) -> Disk:
    """Fetch the whole image each time: a client that reads sees what a guest has written, whoever has the image's lock."""

    def fetch() -> Path:
        target = sandbox.shared / f"{name}.fetched"
        argv = ["rbd", "-c", str(ceph.client_conf(sandbox.layout)), "export", "--no-progress", f"{pool}/{name}", "-"]
        with entered(sandbox.layout.switch):
            content = subprocess.run(argv, check=True, capture_output=True, timeout=_EXPORT_S).stdout
        write_atomically(target, content)
        return target

    return fetch
