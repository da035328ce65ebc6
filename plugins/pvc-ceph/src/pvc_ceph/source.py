"""How QEMU and libvirt are told of a volume.

Ceph's configuration file, which has the same path on every node, says where the monitors are: an address in a guest's
definition would outlive the monitor.
"""

from xml.etree import ElementTree as ET

from pvc_ceph.config import CephConfig
from pvc_core.plugin import DiskSource


def disk_source(config: CephConfig, pool: str, image: str, secret: str) -> DiskSource:
    """Return the source of a disk; ``secret`` is the UUID of libvirt's secret.

    https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
    """
    source = ET.Element("source", protocol="rbd", name=f"{pool}/{image}")
    ET.SubElement(source, "config", file=config.conf)
    auth = ET.SubElement(source, "auth", username=config.vm_user)
    ET.SubElement(auth, "secret", type="ceph", uuid=secret)
    return DiskSource(type="network", source_xml=ET.tostring(source, encoding="unicode"))


def qemu_url(config: CephConfig, pool: str, image: str, snapshot: str = "") -> str:
    """Return a volume as QEMU's own tools name it, which use the daemon's key."""
    at = f"@{snapshot}" if snapshot else ""
    keyring = f":keyring={_escaped(config.keyring)}" if config.keyring else ""
    return f"rbd:{pool}/{image}{at}:id={config.user}:conf={_escaped(config.conf)}{keyring}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")
