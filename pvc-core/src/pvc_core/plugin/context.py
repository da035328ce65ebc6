"""What a driver gets from the node it runs on."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from pvc_core.model.errors import Unavailable
from pvc_core.model.vm import Nic
from pvc_core.plugin.process import Completed


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The node a driver runs on."""

    name: str
    role: str
    address: str = ""
    """Cluster address of this node."""
    coordinators: tuple[str, ...] = ()
    """Names of the coordinators."""
    coordinator_addresses: dict[str, str] = {}
    """Name of a coordinator -> its cluster address."""
    state_directory: str = "/var/lib/pvc"
    """For the node's lasting files; a plugin uses a directory with its own name in it."""
    run_directory: str = "/run/pvc"
    """For files that must not survive a reboot."""
    hypervisor_uri: str = "qemu:///system"
    """Of this node's libvirt."""


class Run(Protocol):
    """Runs a child process: see ``pvc_core.plugin.process.run``."""

    def __call__(self, argv: Sequence[str], *, deadline_s: float, stdin: bytes = b"") -> Completed: ...


class Records(Protocol):
    """Small documents of the plugin in the cluster's state store: every node reads the same.

    Names are paths of words without ``/`` at their ends, such as ``lease/<network>/<address>``; values are what JSON has, up to
    100 KiB.  Writing needs this node's lease, so a node that was given up on writes nothing.  All methods raise PvcError:
    Unavailable without the store, Conflict without the lease.
    """

    def get(self, name: str) -> Any:
        """Return a document's value, None when there is none."""

    def below(self, name: str) -> dict[str, Any]:
        """Return the documents right below a name, by the last word of theirs."""

    def put(self, name: str, value: Any) -> None:
        """Write a document, over one that is there."""

    def delete(self, name: str) -> None:
        """Remove a document and all below it; absent is success."""


class NetworkNic(msgspec.Struct, frozen=True, kw_only=True):
    """A NIC that a VM of the cluster has in a network."""

    vm: str
    """Id of the VM."""
    vm_name: str
    nic: Nic
    node: str = ""
    """The node that holds the VM's claim; empty: none, it does not run."""


class _NoStore:
    """What a context without a state store has: a driver that is constructed by hand, in a test."""

    def _refuse(self, *_: Any) -> Any:
        raise Unavailable("there is no state store here")

    get = below = put = delete = nodes = network_nics = _refuse


_NO_STORE: Final = _NoStore()


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
    records: Records = _NO_STORE
    nodes: Callable[[], list[str]] = _NO_STORE.nodes
    """Names of all nodes of the cluster, alive or not; raises PvcError without the store."""
    network_nics: Callable[[str], list[NetworkNic]] = _NO_STORE.network_nics
    """Network's id -> all NICs in it, on all nodes; raises PvcError without the store."""
