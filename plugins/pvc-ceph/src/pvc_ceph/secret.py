"""The key with which QEMU opens volumes, kept by libvirt on this node.

libvirt hands it to QEMU itself, so it is in no guest's definition and on no command line.  It is ephemeral: on no disk, and
given anew before each use, because a libvirtd that was started again has forgotten it.
"""

import uuid
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final
from xml.etree import ElementTree as ET

from pvc_core.plugin import Context, DriverError, NotReady

_NAMESPACE: Final = uuid.UUID("7d0f57a4-3a51-4f6c-9a5b-0f6f1c6f0c9e")
_DEADLINE_S: Final = 8.0


class LibvirtSecret:
    """libvirt's secret for one Ceph user.  May be used from any thread."""

    def __init__(self, context: Context, user: str) -> None:
        self._run: Final = context.run
        self._directory: Final = Path(context.node.run_directory)
        self._uri: Final = context.node.hypervisor_uri
        self._user: Final = user

    def ensure(self, key: Callable[[], dict[str, str]]) -> str:
        """Give libvirt the secret, and return its UUID, which is the same on all nodes.  Raises NotReady, DriverError."""
        found = key()
        identity = str(uuid.uuid5(_NAMESPACE, f"{found['fsid']}/{self._user}"))
        definition = _definition(identity, f"client.{self._user} of Ceph cluster {found['fsid']}")
        with (
            NamedTemporaryFile("w", dir=self._place(), suffix=".xml") as xml,
            NamedTemporaryFile("w", dir=self._place(), suffix=".key") as value,  # mode 0600
        ):
            xml.write(definition)
            xml.flush()
            value.write(found["key"])
            value.flush()
            for command in (["secret-define", xml.name], ["secret-set-value", identity, "--file", value.name]):
                self._virsh(*command)
        return identity

    def _place(self) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory

    def _virsh(self, *command: str) -> None:
        try:
            self._run(["virsh", "-q", "-c", self._uri, *command], deadline_s=_DEADLINE_S).check()
        except DriverError as error:
            raise NotReady(f"libvirt did not take Ceph's key for VMs ({command[0]}): {error}") from error


def _definition(identity: str, usage: str) -> str:
    """https://libvirt.org/formatsecret.html#usage-type-ceph."""
    secret = ET.Element("secret", ephemeral="yes", private="yes")
    ET.SubElement(secret, "uuid").text = identity
    use = ET.SubElement(secret, "usage", type="ceph")
    ET.SubElement(use, "name").text = usage
    return ET.tostring(secret, encoding="unicode")
