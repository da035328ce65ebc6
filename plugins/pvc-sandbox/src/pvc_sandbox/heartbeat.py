"""A guest whose disk proves where it executes, and that it never does so twice at once."""

from pathlib import Path
from typing import Any, Final

import yaml

from pvc_core.testkit.heartbeat_guest import MEMORY_MIB, OVERLAY, heartbeat_image
from pvc_core.testkit.heartbeats import Beat, Life, lives, read_beats
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import write_atomically
from pvc_sandbox.sandbox import Sandbox
from pvc_sandbox.waiting import wait_until

_START_DEADLINE_S: Final = 60.0


class HeartbeatGuest:
    """A VM of a sandbox that writes heartbeats (``pvc_core.testkit.heartbeats``) on its disk, 6 in a second."""

    def __init__(self, name: str, id_: str, disk: Path) -> None:
        self.name = name
        self.id = id_
        self.disk = disk
        """Its disk as this machine sees it."""

    def beats(self, *, after: int = 0) -> list[Beat]:
        """Return the heartbeats, but for the first ``after``."""
        return read_beats(self.disk, after=after)

    def lives(self) -> list[Life]:
        """Return what it did, boot by boot.  Raises RanTwice when two copies of it executed at the same time."""
        return lives(self.beats())

    def wait_beat(self, *, after: int = 0, deadline_s: float = _START_DEADLINE_S) -> Beat:
        """Wait for a heartbeat behind the first ``after``; return the first.  Raises SandboxError."""
        found = wait_until(f"a sign of life of {self.name}", lambda: self.beats(after=after), deadline_s=deadline_s)
        return found[0]


def start_heartbeat_guest(sandbox: Sandbox, pool: str, name: str, *, node: str, **fields: Any) -> HeartbeatGuest:
    """Make such a VM with a volume of its name in a pool of driver ``dir``, and return when it executes on ``node``.

    ``fields`` are others of its definition.  Raises SandboxError.
    """
    image = sandbox.shared / "heartbeat.raw"
    write_atomically(image, heartbeat_image())
    sandbox.pvc("storage", "volume", "import", f"{pool}/{name}", str(image))
    definition = {
        "name": name,
        "memory": MEMORY_MIB,
        "disks": [{"pool": pool, "volume": name}],
        "overlay_xml": OVERLAY,
        **fields,
    }
    file = sandbox.shared / f"{name}.yml"
    write_atomically(file, yaml.safe_dump(definition, sort_keys=False))
    sandbox.pvc("vm", "define", str(file), "--node", node, "--start")
    id_ = str(sandbox.pvc.json("vm", "info", name)["view"]["id"])
    guest = HeartbeatGuest(name, id_, _disk(sandbox, node, id_))
    guest.wait_beat()
    return guest


def _disk(sandbox: Sandbox, node: str, id_: str) -> Path:
    listed = sandbox.exec(node, ["virsh", "-q", "domblklist", id_]).check().stdout.split()
    if len(listed) != len(("target", "source")):
        raise SandboxError(f"VM {id_} on {node} should have one disk, a file: {listed}")
    return Path(listed[1])
