"""What is checked before a VM's spec is written: does it fit the cluster at all."""

import msgspec

from pvc_core.hypervisor.overlay import check_overlay
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean, not_found
from pvc_core.model.units import format_mib
from pvc_core.model.vm import VmSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.snapshot import NodeFacts, offered, read_nodes
from pvc_core.ops.vm_nic_definition import check_nic_settings
from pvc_core.plan.placement import CORE_SELECTORS


def check_spec(ops: Ops, vm: VmSpec, old: VmSpec | None = None) -> None:
    """Check a VM's spec in itself and against the cluster's nodes, as far as it differs from ``old``.

    Raises InvalidRequest (malformed; more memory or vCPUs than any node has) and NotFound (node).
    """
    _check_ranges(vm)
    for nic in vm.nics:
        check_nic_settings(nic, vm.vcpus)
    if vm.overlay_xml and (old is None or vm.overlay_xml != old.overlay_xml):
        check_overlay(vm.overlay_xml)
    if old is not None and _node_fields(vm) == _node_fields(old):
        return
    nodes = read_nodes(ops.store)
    for name in (*vm.node_limit, *([vm.node] if vm.node else [])):
        if name not in nodes:
            raise not_found("node", name, nodes)
    if vm.node and vm.node_limit and vm.node not in vm.node_limit:
        raise InvalidRequest(f"node {vm.node} is not in the node limit of VM {vm.name!r} ({', '.join(vm.node_limit)})")
    _check_size(vm, nodes)
    _check_selector(ops, vm.selector, nodes)


def check_selector(ops: Ops, selector: str) -> None:
    """Check that a selector exists; raises InvalidRequest."""
    if selector and selector not in CORE_SELECTORS:
        _check_selector(ops, selector, read_nodes(ops.store))


def _node_fields(vm: VmSpec) -> tuple[object, ...]:
    return vm.memory_mib, vm.vcpus, vm.node, vm.node_limit, vm.selector


def _check_ranges(vm: VmSpec) -> None:
    try:
        msgspec.convert(msgspec.to_builtins(vm), VmSpec)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"VM {vm.name!r}: {error}") from error


def _check_size(vm: VmSpec, nodes: dict[str, NodeFacts]) -> None:
    """Refuse what no node could ever take, whatever else runs there.  Nodes that never reported say nothing."""
    where = "of the nodes in its node limit " if vm.node_limit else ""
    sizes = {
        name: (facts.status.memory.total_mib - facts.status.memory.reserved_mib, facts.status.cpus)
        for name, facts in nodes.items()
        if facts.status is not None and facts.status.cpus and (not vm.node_limit or name in vm.node_limit)
    }
    if not sizes:
        return
    name, (memory, _) = max(sizes.items(), key=lambda item: (item[1][0], item[0]))
    if vm.memory_mib > memory:
        raise InvalidRequest(
            f"VM {vm.name!r} wants {format_mib(vm.memory_mib)} of memory; the largest {where}is {name} with "
            f"{format_mib(memory)} for VMs"
        )
    name, (_, cpus) = max(sizes.items(), key=lambda item: (item[1][1], item[0]))
    if vm.vcpus > cpus:
        raise InvalidRequest(f"VM {vm.name!r} wants {vm.vcpus} vCPUs; the largest {where}is {name} with {cpus} CPUs")


def _check_selector(ops: Ops, selector: str, nodes: dict[str, NodeFacts]) -> None:
    known = sorted({*ops.policy.known(), *offered(nodes, "scheduling")})
    if selector and selector not in known:
        raise InvalidRequest(
            f"there is no selector {selector!r}{did_you_mean(selector, known)}; there are {', '.join(known)}"
        )
