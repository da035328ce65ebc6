"""NICs of VMs: add, remove, modify, while the VM runs or not."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import asdict, replace

from pvc_core.model.errors import InvalidRequest, NotFound
from pvc_core.model.names import check_mac, did_you_mean
from pvc_core.model.vm import Nic, NicModel, VmSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.mac import free_macs
from pvc_core.ops.message import Request
from pvc_core.ops.vm_change import VmModified, change_vm
from pvc_core.ops.vm_definition import definition_of
from pvc_core.ops.vm_nic_definition import NicDefinition, NicLimitsDefinition, check_limit_names, nic_definition, nics


class VmNicAdd(Request, frozen=True, kw_only=True):
    """Give a VM another NIC, or take back the removal of one that its guest has not let go of."""

    vm: str
    nic: NicDefinition
    restart: bool = False
    """Restart the guest, if it runs and cannot have the NIC otherwise."""


class VmNicRemove(Request, frozen=True, kw_only=True):
    """Take a NIC from a VM; by network when it has one there, else by MAC address."""

    vm: str
    network: str = ""
    mac: str = ""
    restart: bool = False
    """Restart the guest, if it runs and cannot give the NIC up otherwise."""


class VmNicModify(Request, frozen=True, kw_only=True):
    """Change settings of a NIC, which is named as for ``VmNicRemove``."""

    vm: str
    network: str = ""
    mac: str = ""
    new_mac: str | UnsetType = UNSET
    """Another MAC address makes another NIC of it."""
    model: NicModel | UnsetType = UNSET
    queues: Annotated[int, Meta(ge=1, le=256)] | UnsetType = UNSET
    link_up: bool | UnsetType = UNSET
    limits: dict[str, int | str] = {}
    """The limits to change, by their names in ``model.vm.NicLimits``; 0: none."""
    addresses: tuple[str, ...] | UnsetType = UNSET
    """All of them."""
    parameters: dict[str, str] = {}
    """Those to change; an empty text takes one away."""
    restart: bool = False
    """Restart the guest, if it runs and a change needs that."""


def vm_nic_add(ops: Ops, request: VmNicAdd) -> VmModified:
    """Add a NIC as the last one: to a running guest at once.

    One that is being removed is taken back as it is, if nothing is said of it but network and MAC address.  Raises
    NotFound (network), AlreadyExists (MAC address), InvalidRequest (settings).
    """

    def next_(vm: VmSpec) -> VmSpec:
        return replace(vm, nics=nics((*definition_of(vm).nics, request.nic), free_macs(ops)))

    return change_vm(ops, request.vm, next_, restart=request.restart)


def vm_nic_remove(ops: Ops, request: VmNicRemove) -> VmModified:
    """Remove a NIC.

    Of a running guest it is asked for, and belongs to the VM until the guest has let go, or has ended.  Raises NotFound,
    InvalidRequest when the network names several.
    """
    mac = _checked(request.network, request.mac)

    def next_(vm: VmSpec) -> VmSpec:
        gone = _named(vm, request.network, mac)
        return replace(vm, nics=tuple(nic for nic in vm.nics if nic is not gone))

    return change_vm(ops, request.vm, next_, restart=request.restart)


def vm_nic_modify(ops: Ops, request: VmNicModify) -> VmModified:
    """Change a NIC: its limits, addresses and link at once, model, queues and parameters when the guest starts again.

    With another MAC address it is another NIC: a running guest is given it, and asked to let go of the old one.
    Raises NotFound, AlreadyExists (MAC address), InvalidRequest (settings, nothing to change, several NICs in the network).
    """
    mac = _checked(request.network, request.mac)
    fields = ("model", "queues", "link_up", "addresses")
    changes: dict[str, Any] = {field: value for field in fields if (value := getattr(request, field)) is not UNSET}
    if request.new_mac is not UNSET:
        changes["mac"] = request.new_mac
    if not (changes or request.limits or request.parameters):
        raise InvalidRequest(
            "say what to change of the NIC: model, queues, link, a limit, addresses, MAC address or a parameter"
        )

    def next_(vm: VmSpec) -> VmSpec:
        old = _named(vm, request.network, mac)
        given = nic_definition(old)
        merged = {**old.parameters, **request.parameters}
        new = replace(
            given,
            limits=_with_limits(old, request.limits),
            parameters={name: value for name, value in merged.items() if value},
            **changes,
        )
        wanted = tuple(new if nic is old else nic_definition(nic) for nic in vm.nics)
        return replace(vm, nics=nics(wanted, free_macs(ops)))

    return change_vm(ops, request.vm, next_, restart=request.restart)


def _checked(network: str, mac: str) -> str:
    if not mac and not network:
        raise InvalidRequest("say which NIC: its network or its MAC address")
    return check_mac(mac) if mac else ""


def _named(vm: VmSpec, network: str, mac: str) -> Nic:
    """Return the NIC with this network and MAC address, of which one may be left open."""
    found = [nic for nic in vm.nics if mac in ("", nic.mac) and network in ("", nic.network)]
    what = " ".join(word for word in (network, mac) if word)
    if not found:
        known = [word for nic in vm.nics for word in (nic.network, nic.mac)]
        have = ", ".join(f"{nic.mac} in {nic.network}" for nic in vm.nics) or "none"
        raise NotFound(f"VM {vm.name!r} has no NIC {what}{did_you_mean(what, known)}; it has {have}")
    if len(found) > 1:
        macs = ", ".join(nic.mac for nic in found)
        raise InvalidRequest(f"VM {vm.name!r} has {len(found)} NICs in {what}; give the MAC address, one of {macs}")
    return found[0]


def _with_limits(nic: Nic, changes: dict[str, int | str]) -> NicLimitsDefinition:
    check_limit_names(changes)
    return NicLimitsDefinition(**(asdict(nic.limits) | changes))
