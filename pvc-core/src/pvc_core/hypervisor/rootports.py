"""Where a conventional PCI device goes in a running guest whose machine has PCI Express only.

libvirt puts conventional devices (e1000, rtl8139) behind a bridge of their own, which it makes when a guest starts that needs
it, and cannot add to one that runs: "No more available PCI slots".  A PCIe root port takes such a device too, and
libvirt allows that where the address is given (``virDomainPCIAddressFlagsCompatible``: an address "from the config").
"""

from typing import Final
from xml.etree import ElementTree as ET

CONVENTIONAL: Final = frozenset({"e1000", "rtl8139"})
"""Models of NICs that are conventional PCI devices."""


def placed(device: ET.Element, domain_xml: str) -> ET.Element:
    """Return a device with the address of a free root port, where it needs one; changes the device in place."""
    model = device.find("model")
    if device.tag == "interface" and model is not None and model.get("type") in CONVENTIONAL:
        bus = free_root_port(domain_xml)
        if bus is not None and device.find("address") is None:
            ET.SubElement(device, "address", type="pci", domain="0", bus=hex(bus), slot="0", function="0")
    return device


def free_root_port(domain_xml: str) -> int | None:
    """Return the number of the bus of a root port that no device is at, None when a domain has none."""
    devices = ET.fromstring(domain_xml).find("devices")  # noqa: S314 - from libvirt
    if devices is None:
        return None
    ports = [int(c.get("index", "0")) for c in devices.iterfind("controller[@model='pcie-root-port']")]
    taken = {int(address.get("bus", "0"), 0) for address in devices.iterfind("*/address[@type='pci']")}
    return next((port for port in sorted(ports) if port not in taken), None)
