"""What is right and wrong with Ceph, as conditions of a node.

Every node tells of its own daemons, and whether it reaches the cluster.  What concerns the cluster as a whole is told by
one node, the one with the leading monitor, and not by a hundred; of an external cluster by the coordinators.
"""

from collections.abc import Callable
from typing import Final

from pvc_ceph.report import Check, Daemon, NodeReport, Severity, Status
from pvc_core.model.base import Condition
from pvc_core.plugin import AuthFailed, DriverError

_MOST_SAID: Final = 3


def conditions(ask: Callable[[], NodeReport], node: str, *, coordinator: bool, external: bool) -> list[Condition]:
    """Return the conditions of a node."""
    try:
        report = ask()
    except AuthFailed as error:
        return [_bad("Ceph", "Refused", f"Ceph refuses this node's key, or lets it do too little: {error}")]
    except DriverError as error:
        return [_bad("Ceph", "Unreachable", f"this node does not reach Ceph: {error}")]
    status = report.status
    found = [Condition(type="Ceph", ok=True)]
    if not external:
        found += _own(status, report.down, node)
    leads = any(monitor.state == "leader" and monitor.host == node for monitor in status.monitors)
    if coordinator if external else leads:
        found.append(_whole(status))
    return found


def _own(status: Status, down: tuple[str, ...], node: str) -> list[Condition]:
    monitors = [each for each in status.monitors if node in (each.host, each.name)]
    found = [_monitor(each) for each in monitors]
    if monitors:
        found.append(_manager(status.managers, node))
    if down:
        found.append(
            _bad("CephOsds", "Down", f"{', '.join(down)} of this node {'is' if len(down) == 1 else 'are'} down")
        )
    else:
        found.append(Condition(type="CephOsds", ok=True))
    return found


def _monitor(monitor: Daemon) -> Condition:
    if monitor.works:
        return Condition(type="CephMonitor", ok=True)
    return _bad("CephMonitor", "OutOfQuorum", f"monitor {monitor.name} of this node is not in the quorum")


def _manager(managers: tuple[Daemon, ...], node: str) -> Condition:
    """Ceph itself does not miss a manager as long as another one works."""
    if any(node in (each.host, each.name) for each in managers):
        return Condition(type="CephManager", ok=True)
    return _bad("CephManager", "Missing", "no manager works on this node, which has a monitor")


def _whole(status: Status) -> Condition:
    checks = [check for check in status.checks if not check.muted]
    if status.severity is Severity.OK or not checks:
        return Condition(type="CephHealth", ok=True)
    more = f"; and {len(checks) - _MOST_SAID} more" if len(checks) > _MOST_SAID else ""
    said = "; ".join(_said(check) for check in checks[:_MOST_SAID])
    reason = "Error" if status.severity is Severity.ERROR else "Warning"
    return _bad("CephHealth", reason, f"{said}{more}: see pvc storage status")


def _said(check: Check) -> str:
    return f"{check.message} ({check.code})"


def _bad(type_: str, reason: str, message: str) -> Condition:
    return Condition(type=type_, ok=False, reason=reason, message=message)
