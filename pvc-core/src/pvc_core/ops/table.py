"""The table of operations: CLI, HTTP API and Python bindings are faces of it.

A module is imported when one of its operations is looked up, so that one command costs only its own part.
"""

import importlib
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pvc_core.model.names import not_found
from pvc_core.ops.context import Ops

_MODULES: Final[dict[str, str]] = {
    "vm.list": "vm_views:vm_list",
    "vm.info": "vm_views:vm_info",
    "vm.dump": "vm_views:vm_dump",
    "vm.define": "vm_define:vm_define",
    "vm.modify": "vm_modify:vm_modify",
    "vm.rename": "vm_modify:vm_rename",
    "vm.tags": "vm_modify:vm_tags",
    "vm.autostart": "vm_modify:vm_autostart",
    "vm.disk-add": "vm_disks:vm_disk_add",
    "vm.disk-remove": "vm_disks:vm_disk_remove",
    "vm.disk-modify": "vm_disks:vm_disk_modify",
    "vm.nic-add": "vm_nics:vm_nic_add",
    "vm.nic-remove": "vm_nics:vm_nic_remove",
    "vm.nic-modify": "vm_nics:vm_nic_modify",
    "vm.start": "vm_power:vm_start",
    "vm.shutdown": "vm_power:vm_shutdown",
    "vm.stop": "vm_power:vm_stop",
    "vm.restart": "vm_power:vm_restart",
    "vm.disable": "vm_power:vm_disable",
    "vm.move": "vm_move:vm_move",
    "vm.migrate": "vm_move:vm_migrate",
    "vm.unmigrate": "vm_move:vm_unmigrate",
    "vm.remove": "vm_remove:vm_remove",
    "vm.flush-locks": "vm_locks:vm_flush_locks",
    "vm.snapshot-create": "vm_snapshot:vm_snapshot_create",
    "vm.snapshot-list": "vm_snapshot_views:vm_snapshot_list",
    "vm.snapshot-info": "vm_snapshot_views:vm_snapshot_info",
    "vm.snapshot-rename": "vm_snapshot:vm_snapshot_rename",
    "vm.snapshot-delete": "vm_snapshot:vm_snapshot_delete",
    "vm.snapshot-rollback": "vm_snapshot_rollback:vm_snapshot_rollback",
    "vm.snapshot-abandon": "vm_snapshot_rollback:vm_snapshot_abandon",
    "node.list": "node:node_list",
    "node.info": "node:node_info",
    "node.flush": "node_service:node_flush",
    "node.ready": "node_service:node_ready",
    "node.maintenance": "node_service:node_maintenance",
    "node.primary": "node_service:node_primary",
    "node.secondary": "node_service:node_secondary",
    "node.remove": "node_service:node_remove",
    "primary.info": "node_service:primary_info",
    "network.add": "network:network_add",
    "network.modify": "network:network_modify",
    "network.remove": "network:network_remove",
    "network.list": "network:network_list",
    "network.info": "network:network_info",
    "pool.add": "pool:pool_add",
    "pool.modify": "pool:pool_modify",
    "pool.remove": "pool:pool_remove",
    "pool.list": "pool:pool_list",
    "pool.info": "pool:pool_info",
    "volume.add": "volume:volume_add",
    "volume.clone": "volume:volume_clone",
    "volume.resize": "volume:volume_resize",
    "volume.rename": "volume:volume_rename",
    "volume.remove": "volume:volume_remove",
    "volume.list": "volume:volume_list",
    "volume.info": "volume:volume_info",
    "volume.import": "volume_image:volume_import",
    "volume.export": "volume_image:volume_export",
    "snapshot.create": "volume_snapshot:snapshot_create",
    "snapshot.delete": "volume_snapshot:snapshot_delete",
    "snapshot.rename": "volume_snapshot:snapshot_rename",
    "snapshot.protect": "volume_snapshot:snapshot_protect",
    "snapshot.rollback": "volume_snapshot:snapshot_rollback",
    "snapshot.list": "volume_snapshot:snapshot_list",
    "task.create": "task:task_create",
    "task.list": "task:task_list",
    "task.info": "task:task_info",
    "task.cancel": "task:task_cancel",
    "task.prune": "task:task_prune",
    "fence.status": "fence_status:fence_status",
    "fence.list": "fence_record:fence_list",
    "fence.info": "fence_record:fence_info",
    "fence.confirm": "fence_confirm:fence_confirm",
    "fence.test": "fence_power:fence_test",
    "fence.power": "fence_power:fence_power",
    "fence.level-add": "fence_level:fence_level_add",
    "fence.level-remove": "fence_level:fence_level_remove",
    "fence.level-list": "fence_level:fence_level_list",
    "cluster.status": "cluster:cluster_status",
    "cluster.maintenance": "cluster:cluster_maintenance",
    "cluster.settings": "cluster:cluster_settings",
    "cluster.backup": "backup:cluster_backup",
    "cluster.restore": "backup:cluster_restore",
}

_READING: Final = frozenset({"list", "info", "dump", "status"})


class Operation(NamedTuple):
    """One operation."""

    name: str
    run: Callable[[Ops, Any], Any]
    request: type[Any]
    """A ``Request``."""
    response: Any
    """A msgspec type: a struct, or a list of structs."""
    summary: str
    changes: bool
    """It may write: not to be repeated blindly."""


def names() -> list[str]:
    """Return the names of all operations, sorted."""
    return sorted(_MODULES)


def lookup(name: str) -> Operation:
    """Return an operation; raises NotFound with the nearest name."""
    target = _MODULES.get(name)
    if target is None:
        raise not_found("operation", name, _MODULES)
    module_name, function_name = target.split(":")
    function = getattr(importlib.import_module(f"pvc_core.ops.{module_name}"), function_name)
    hints = typing.get_type_hints(function)
    summary = (inspect.getdoc(function) or "").split("\n", 1)[0]
    return Operation(
        name, function, hints["request"], hints["return"], summary, re.split("[.-]", name)[-1] not in _READING
    )
