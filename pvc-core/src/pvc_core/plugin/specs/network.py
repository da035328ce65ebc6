"""Network drivers: networks on a node and the NICs of VMs.

Kind: driver hooks; the network's ``driver`` names the one that answers.  Thread: the plugin's own pool
of daemon threads; calls for one network never run at the same time.  Every call is idempotent.  An
exception means "not done", as for storage drivers.
"""

# ruff: noqa: ARG002 - the arguments of a default are the specification

import abc

import msgspec

from pvc_core.model.network import NetworkSpec
from pvc_core.model.vm import Nic
from pvc_core.plugin.errors import Unsupported
from pvc_core.plugin.markers import hookspec


class NetworkCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver can do here."""

    live_migration: bool = True
    """False: a VM with such a NIC is moved by shutdown only."""
    hot_plug: bool = True
    gateway: bool = False
    """It has a gateway that moves with the primary role (a role service)."""
    max_mtu: int = 0
    """0: unknown."""
    parameters: tuple[str, ...] = ()
    """Parameters of a network that it understands; others are refused."""
    nic_parameters: tuple[str, ...] = ()


class NetworkState(msgspec.Struct, frozen=True, kw_only=True):
    """A network as it is on this node."""

    device: str
    mtu: int
    problems: tuple[str, ...] = ()
    """What is wrong though NICs can be attached, in sentences: a rule that was left out, an address that two guests want."""


class NicSource(msgspec.Struct, frozen=True, kw_only=True):
    """How the hypervisor connects a NIC: the parts of libvirt's ``<interface>`` that only the driver knows."""

    type: str
    """Of ``<interface type=...>``: bridge, direct, hostdev, ..."""
    inner_xml: str
    """Elements such as ``<source .../>``, ``<target dev=.../>``, ``<vlan>``, ``<virtualport>``, ``<mtu>``; not mac, model,
    link.  A device's name is the same on every node that the VM can run on, for it moves with the VM."""
    has_model: bool = True
    """False: the element takes no ``<model>`` (hostdev)."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One result of a check, for people."""

    ok: bool
    check: str
    message: str


class NetworkDriver(abc.ABC):
    """A network technology.  Constructed as ``Driver(context, config)``; the constructor does no I/O."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def network_capabilities(self) -> NetworkCapabilities:
        """Say what this driver can do here.  Deadline 5 s; called once, after ``network_preflight``."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def network_preflight(self) -> bool:
        """Check without side effects that networks can be made on this node; True, or raise NotReady.

        Deadline 30 s; called again every minute until it succeeds.
        """

    @hookspec(firstresult=True)
    def network_close(self) -> bool:
        """Release handles; networks stay.  May be called twice.  Deadline 10 s."""
        return True

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def network_ensure(self, network: NetworkSpec) -> NetworkState:
        """Make the network exist here as specified, changing a live one in place.  Deadline 30 s.

        Adopts what exists; raises DriverError, not retryable, when something that is not ours is in the way.
        """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def network_remove(self, network: NetworkSpec) -> bool:
        """Remove what the driver made for it; absent is success.  Deadline 30 s."""

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def network_list(self) -> list[str]:
        """Return the ids of the networks that this driver has on this node, from the kernel or a file.

        Deadline 10 s.  Core removes those whose specification is gone.
        """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def nic_attach(self, network: NetworkSpec, nic: Nic, vm: str, incoming: bool) -> NicSource:
        """Reserve and prepare what a NIC needs on this node, and say how it is connected.  Deadline 30 s.

        ``incoming``: for the target of a live migration, while the source still has the NIC.
        """

    @hookspec(firstresult=True)
    @abc.abstractmethod
    def nic_detach(self, network: NetworkSpec, nic: Nic, vm: str) -> bool:
        """Release what ``nic_attach`` reserved; nothing there is success.  Deadline 30 s."""

    @hookspec(firstresult=True)
    def nic_arrived(self, network: NetworkSpec, nic: Nic, vm: str) -> bool:
        """Told right after the VM began to run here by live migration: announce it.  Deadline 10 s."""
        return True

    @hookspec(firstresult=True)
    def network_check(self, network: NetworkSpec) -> list[Finding]:
        """Look for what could be wrong with the network, seen from this node.  Deadline 60 s."""
        raise Unsupported("this network driver has no checks")
