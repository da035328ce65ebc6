"""A NIC as libvirt's ``<interface>``, of its domain format (https://libvirt.org/formatdomain.html, "Network interfaces")."""

import copy
import re
from typing import Final
from xml.etree import ElementTree as ET

from pvc_core.hypervisor.fragment import fragment
from pvc_core.model.vm import NO_NIC_LIMITS, Nic, NicLimits
from pvc_core.plugin.specs.network import NicSource


def render_nic(nic: Nic, source: NicSource) -> ET.Element:
    """Return one ``<interface>`` element, as also used for plugging one into a running guest."""
    element = fragment(
        f"<interface type='{source.type}'>{source.inner_xml}</interface>", f"the NIC in network {nic.network}"
    )
    ET.SubElement(element, "mac", address=nic.mac)
    ET.SubElement(element, "alias", name=nic_alias(nic.mac))
    if not source.has_model:
        return element
    ET.SubElement(element, "model", type=nic.model)
    if nic.model == "virtio" and nic.queues > 1:
        ET.SubElement(element, "driver", queues=str(nic.queues))
    if not nic.link_up:
        ET.SubElement(element, "link", state="down")
    if nic.limits != NO_NIC_LIMITS:
        element.append(_render_bandwidth(nic.limits))
    return element


def _render_bandwidth(limits: NicLimits) -> ET.Element:
    element = ET.Element("bandwidth")
    for field, (way, what) in BANDWIDTH.items():
        rate = getattr(limits, field)
        if rate:
            part = element.find(way)
            (ET.SubElement(element, way) if part is None else part).set(what, str(rate))
    return element


BANDWIDTH: Final = {
    f"{way}_{what}": (f"{way}bound", what) for way in ("in", "out") for what in ("average", "peak", "burst")
}
"""Field of a NIC's limits -> element and attribute in ``<bandwidth>``; with a dot between them its name in calls."""


def bandwidth_parameters(limits: NicLimits) -> dict[str, int]:
    """Return all limits, those that are not set as 0, by their names in libvirt's calls."""
    return {f"{way}.{what}": getattr(limits, field) for field, (way, what) in BANDWIDTH.items()}


def nic_limits_of(interface: ET.Element) -> NicLimits:
    """Return the limits that an ``<interface>`` has, as far as ``NicLimits`` knows them."""
    return NicLimits(
        **{
            field: int(part.get(what, "0"))
            for field, (way, what) in BANDWIDTH.items()
            if (part := interface.find(f"bandwidth/{way}")) is not None
        }
    )


def is_link_up(interface: ET.Element) -> bool:
    """Return whether the link of an ``<interface>`` is up."""
    link = interface.find("link")
    return link is None or link.get("state") != "down"


def with_link(interface: ET.Element, *, up: bool) -> str:
    """Return the XML of an ``<interface>`` of a domain with its link up or down, otherwise as it is."""
    element = copy.deepcopy(interface)
    for link in element.findall("link"):
        element.remove(link)
    ET.SubElement(element, "link", state="up" if up else "down")
    return ET.tostring(element, encoding="unicode")


NIC_ALIAS_PREFIX: Final = "ua-nic-"
"""Of the aliases of NICs: libvirt keeps those that begin with ``ua-`` as they are, over migrations too."""


def nic_alias(mac: str) -> str:
    """Return the alias of a NIC, which names its MAC address."""
    return NIC_ALIAS_PREFIX + mac.replace(":", "")


def mac_of(alias: str) -> str | None:
    """Return the MAC address that an alias names, None when it is not one of ``nic_alias``."""
    digits = alias.removeprefix(NIC_ALIAS_PREFIX)
    if digits == alias or not re.fullmatch(r"[0-9a-f]{12}", digits):
        return None
    return ":".join(re.findall("..", digits))
