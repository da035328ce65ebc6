"""The commands of scenario files that are requests of an operator, and may be refused."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvc_core.ops.cluster import ClusterMaintenance, cluster_maintenance
from pvc_core.ops.fence_confirm import FenceConfirm, fence_confirm
from pvc_core.ops.node import NodeQuery
from pvc_core.ops.node_service import (
    NodeFlush,
    NodeMaintenance,
    NodePrimary,
    node_flush,
    node_maintenance,
    node_primary,
    node_ready,
)
from pvc_core.ops.vm_move import VmMigrate, VmMove, VmUnmigrate, vm_migrate, vm_move, vm_unmigrate
from pvc_core.ops.vm_power import VmStart, VmStop, vm_restart, vm_shutdown, vm_start, vm_stop
from pvc_core.ops.vm_remove import VmRemove, vm_remove
from pvc_core.ops.vm_views import VmQuery
from pvc_core.testkit.scenario.words import Args, Verb

if TYPE_CHECKING:
    from pvc_core.testkit.scenario.site import Site


def _confirm(site: "Site", args: Args) -> None:
    request = FenceConfirm(node=args.nodes[0], by="operator@desk", reason="somebody looked at it")
    fence_confirm(site.cluster.ops, request)


def _maintenance(site: "Site", args: Args) -> None:
    for node in args.nodes:
        node_maintenance(site.cluster.ops, NodeMaintenance(node=node, maintenance=args.word == "on", for_s=args.for_s))


def _cluster_maintenance(site: "Site", args: Args) -> None:
    cluster_maintenance(site.cluster.ops, ClusterMaintenance(maintenance=args.word == "on", for_s=args.for_s))


def _flush(site: "Site", args: Args) -> None:
    for node in args.nodes:
        node_flush(site.cluster.ops, NodeFlush(node=node, force=True))


def _ready(site: "Site", args: Args) -> None:
    for node in args.nodes:
        node_ready(site.cluster.ops, NodeQuery(node=node))


def _of_vm(call: Callable[["Site", str, str | None], object]) -> Callable[["Site", Args], None]:
    """Return a call that is made for each of the VMs: its id, and the node if one is named."""

    def calls(site: "Site", args: Args) -> None:
        for vm in args.vms:
            call(site, site.ids[vm], args.other or None)

    return calls


REQUESTS: Final = (
    Verb("operator fence-confirm NODE", "As `pvc fence confirm`.", _confirm, request=True),
    Verb("operator maintenance NODES on|off [for SECONDS]", "As `pvc node maintenance`.", _maintenance, request=True),
    Verb(
        "operator cluster-maintenance on|off [for SECONDS]",
        "As `pvc cluster maintenance`.",
        _cluster_maintenance,
        request=True,
    ),
    Verb("operator flush NODES", "As `pvc node flush --force`.", _flush, request=True),
    Verb("operator ready NODES", "As `pvc node ready`.", _ready, request=True),
    Verb(
        "operator primary NODE",
        "As `pvc node primary`.",
        lambda s, a: node_primary(s.cluster.ops, NodePrimary(node=a.nodes[0])),
        request=True,
    ),
    Verb(
        "operator start VM [OTHER]",
        "As `pvc vm start`.",
        _of_vm(lambda s, vm, node: vm_start(s.cluster.ops, VmStart(vm=vm, node=node))),
        request=True,
    ),
    Verb(
        "operator shutdown VM",
        "As `pvc vm shutdown`.",
        _of_vm(lambda s, vm, _: vm_shutdown(s.cluster.ops, VmQuery(vm=vm))),
        request=True,
    ),
    Verb(
        "operator stop VM",
        "As `pvc vm stop`.",
        _of_vm(lambda s, vm, _: vm_stop(s.cluster.ops, VmStop(vm=vm))),
        request=True,
    ),
    Verb(
        "operator restart VM",
        "As `pvc vm restart`.",
        _of_vm(lambda s, vm, _: vm_restart(s.cluster.ops, VmQuery(vm=vm))),
        request=True,
    ),
    Verb(
        "operator migrate VM [OTHER]",
        "As `pvc vm migrate`.",
        _of_vm(lambda s, vm, node: vm_migrate(s.cluster.ops, VmMigrate(vm=vm, node=node))),
        request=True,
    ),
    Verb(
        "operator move VM [OTHER]",
        "As `pvc vm move`.",
        _of_vm(lambda s, vm, node: vm_move(s.cluster.ops, VmMove(vm=vm, node=node))),
        request=True,
    ),
    Verb(
        "operator unmigrate VM",
        "As `pvc vm unmigrate`.",
        _of_vm(lambda s, vm, _: vm_unmigrate(s.cluster.ops, VmUnmigrate(vm=vm))),
        request=True,
    ),
    Verb(
        "operator remove VM",
        "As `pvc vm remove --force`.",
        _of_vm(lambda s, vm, _: vm_remove(s.cluster.ops, VmRemove(vm=vm, force=True))),
        request=True,
    ),
)
