"""The public surface for plugins: import from here (or from its modules), from ``pvc_core.model``, and nothing else.

Names are imported when they are first used, so that a manifest (``from pvc_core.plugin import Manifest``),
which ``pvc --help`` reads, does not load the hook specifications.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pvc_core.plugin.config import Secret, decode
    from pvc_core.plugin.context import Context, NetworkNic, NodeInfo, Records, Run
    from pvc_core.plugin.errors import (
        AuthFailed,
        ConfigError,
        DeadlineExceeded,
        DriverError,
        NotReady,
        ObjectBusy,
        ObjectExists,
        ObjectMissing,
        Unsupported,
    )
    from pvc_core.plugin.manifest import CommandSpec, Manifest
    from pvc_core.plugin.markers import hookimpl, hookspec
    from pvc_core.plugin.process import Completed, run
    from pvc_core.plugin.specs.fencing import FenceDriver, FenceTarget, PowerState
    from pvc_core.plugin.specs.lifecycle import Metric, Query, RoleService, TaskProgress, TaskRunner
    from pvc_core.plugin.specs.network import Finding, NetworkCapabilities, NetworkDriver, NetworkState, NicSource
    from pvc_core.plugin.specs.scheduling import SelectorDriver
    from pvc_core.plugin.specs.storage import (
        Attachment,
        BlockResult,
        Cancelled,
        DiskSource,
        Progress,
        StorageCapabilities,
        StorageDriver,
        VolumeInfo,
        VolumeRef,
    )
    from pvc_core.plugin.version import HOOK_API

_HOME: Final = {
    "config": ("Secret", "decode"),
    "context": ("Context", "NetworkNic", "NodeInfo", "Records", "Run"),
    "errors": (
        "AuthFailed",
        "ConfigError",
        "DeadlineExceeded",
        "DriverError",
        "NotReady",
        "ObjectBusy",
        "ObjectExists",
        "ObjectMissing",
        "Unsupported",
    ),
    "manifest": ("CommandSpec", "Manifest"),
    "markers": ("hookimpl", "hookspec"),
    "process": ("Completed", "run"),
    "specs.fencing": ("FenceDriver", "FenceTarget", "PowerState"),
    "specs.lifecycle": ("Metric", "Query", "RoleService", "TaskProgress", "TaskRunner"),
    "specs.network": ("Finding", "NetworkCapabilities", "NetworkDriver", "NetworkState", "NicSource"),
    "specs.scheduling": ("SelectorDriver",),
    "specs.storage": (
        "Attachment",
        "BlockResult",
        "Cancelled",
        "DiskSource",
        "Progress",
        "StorageCapabilities",
        "StorageDriver",
        "VolumeInfo",
        "VolumeRef",
    ),
    "version": ("HOOK_API",),
}
_MODULE_OF: Final = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "HOOK_API",
    "Attachment",
    "AuthFailed",
    "BlockResult",
    "Cancelled",
    "CommandSpec",
    "Completed",
    "ConfigError",
    "Context",
    "DeadlineExceeded",
    "DiskSource",
    "DriverError",
    "FenceDriver",
    "FenceTarget",
    "Finding",
    "Manifest",
    "Metric",
    "NetworkCapabilities",
    "NetworkDriver",
    "NetworkNic",
    "NetworkState",
    "NicSource",
    "NodeInfo",
    "NotReady",
    "ObjectBusy",
    "ObjectExists",
    "ObjectMissing",
    "PowerState",
    "Progress",
    "Query",
    "Records",
    "RoleService",
    "Run",
    "Secret",
    "SelectorDriver",
    "StorageCapabilities",
    "StorageDriver",
    "TaskProgress",
    "TaskRunner",
    "Unsupported",
    "VolumeInfo",
    "VolumeRef",
    "decode",
    "hookimpl",
    "hookspec",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
