"""XML that drivers supply."""

from xml.etree import ElementTree as ET

from pvc_core.hypervisor.api import HypervisorError


def fragment(xml: str, what: str) -> ET.Element:
    """Return an element from XML that a driver supplied; raise HypervisorError when it cannot be read."""
    try:
        return ET.fromstring(xml)  # noqa: S314 - from our own drivers
    except ET.ParseError as error:
        raise HypervisorError(f"{what} as the driver gave it is not valid XML ({error}): {xml}") from error
