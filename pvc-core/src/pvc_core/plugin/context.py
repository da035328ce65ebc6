"""What a driver gets from the node it runs on."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from pvc_core.plugin.process import Completed


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The node a driver runs on."""

    name: str
    role: str
    address: str = ""
    """Cluster address of this node."""
    coordinators: tuple[str, ...] = ()
    state_directory: str = "/var/lib/pvc"
    """For the node's lasting files; a plugin uses a directory with its own name in it."""
    run_directory: str = "/run/pvc"
    """For files that must not survive a reboot."""
    hypervisor_uri: str = "qemu:///system"
    """Of this node's libvirt."""


class Run(Protocol):
    """Runs a child process: see ``pvc_core.plugin.process.run``."""

    def __call__(self, argv: Sequence[str], *, deadline_s: float, stdin: bytes = b"") -> Completed: ...


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Given to each driver's constructor: ``Driver(context, config)``."""

    node: NodeInfo
    log: logging.Logger
    """Named after the plugin."""
    run: Run
    wake: Callable[[str, str], None]
    """``wake(kind, id)``: have core look at this object again soon (its state in the backend changed)."""
    config: Any = None
    """The plugin's decoded section."""
