"""What commands on OSDs ask nodes, and how they let a node do something."""

from collections.abc import Callable
from typing import Any

import msgspec

from pvc_ceph.osd.values import AddPreview, DeviceRow, OsdList, OsdRow
from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin.cli import Client, session

PLUGIN = "ceph"
_LIMIT_S = 30 * 86400
"""Of a task: moving the data of a large disk away takes days."""


def listing(client: Client) -> OsdList:
    """Return all OSDs; warn when their figures are not known."""
    found = msgspec.convert(client.ask("ceph.osd-list"), OsdList)
    if not found.measured:
        session().out.warn("no manager of Ceph answers: sizes, use and placement groups are not known now")
    return found


def devices_of(client: Client, node: str) -> list[DeviceRow]:
    """Return the disks of a node."""
    return msgspec.convert(client.ask("ceph.devices", node), list[DeviceRow])


def preview(client: Client, node: str, arguments: dict[str, Any]) -> AddPreview:
    """Return what an addition would come to; raises PvcError when it is refused."""
    return msgspec.convert(client.ask("ceph.osd-preview", node, **arguments), AddPreview)


def known(osds: OsdList, id_: int) -> OsdRow:
    """Return an OSD; raise InvalidRequest when there is none of this id."""
    row = osds.of(id_)
    if row is None:
        there = ", ".join(str(osd.id) for osd in osds.osds) or "none"
        raise InvalidRequest(f"there is no OSD {id_}; there are: {there}")
    return row


def is_alive(client: Client, node: str) -> bool:
    """Return whether a node is one of the cluster's, and alive."""
    return any(row.name == node and row.alive for row in client.call("node.list"))


def give(
    kind: str,
    node: str,
    subject: str,
    arguments: dict[str, Any],
    done: Callable[[dict[str, Any]], str],
    *,
    wait: bool,
    timeout: float,
) -> None:
    """Let a node do a task, and follow it; ``done`` makes of its result what is said in the end."""
    call = session()
    task = call.client.call(
        "task.create", kind=f"ceph.osd.{kind}", node=node, subject=subject, arguments=arguments, time_limit_s=_LIMIT_S
    )
    call.follow(task, lambda ended: done(ended.result), wait=wait, timeout=timeout)


def number(value: float | None) -> str | None:
    """Return a fraction as an argument of a task, which has none."""
    return None if value is None else repr(value)
