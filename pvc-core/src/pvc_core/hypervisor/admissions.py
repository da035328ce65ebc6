"""Which guests may come to this host by a live migration.

libvirt takes every guest that the libvirt of another host brings; of leases it knows nothing.  So the guest must name a
way that is there only when this host's daemon has agreed, and only until the host starts anew: it logs its console through
a link in the run directory, which is empty after a boot.  Without the link the log cannot be opened, and libvirt
refuses the guest before its source has sent anything.
"""

import shutil
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

_DIRECTORY: Final = "arrivals"


class Admissions:
    """The links.  May be used from any thread, for one VM by one at a time."""

    def __init__(self, run_directory: Path) -> None:
        self._directory: Final = run_directory / _DIRECTORY

    def admit(self, vm: str, attempt: str, console_log: str) -> str:
        """Make the way for one attempt, and end those of others; returns the file that the guest must log to."""
        log, ways = Path(console_log), self._directory / vm
        way = ways / attempt
        if not way.is_symlink():
            self.dismiss(vm)
            ways.mkdir(parents=True, exist_ok=True)
            way.symlink_to(log.parent)
        return str(way / log.name)

    def dismiss(self, vm: str) -> None:
        """End the ways of a VM."""
        # Only links are in it, and they are not followed.
        shutil.rmtree(self._directory / vm, ignore_errors=True)


def logging_to(xml: str, console_log: str) -> str:
    """Return a domain's XML with another file for its console's log."""
    root = ET.fromstring(xml)  # noqa: S314 - from libvirt
    for device in (root.find("devices/serial"), root.find("devices/console")):
        if device is not None:
            log = device.find("log")
            log = ET.SubElement(device, "log") if log is None else log
            log.attrib.update(file=console_log, append="on")
    return ET.tostring(root, encoding="unicode")
