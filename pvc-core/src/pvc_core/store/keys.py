"""Where every document lives, and of what type it is: the one place that knows paths."""

from typing import Final, Generic, NamedTuple, TypeVar

from pvc_core.model import cluster as m_cluster
from pvc_core.model import fence as m_fence
from pvc_core.model import network as m_network
from pvc_core.model import node as m_node
from pvc_core.model import storage as m_storage
from pvc_core.model import task as m_task
from pvc_core.model import vm as m_vm
from pvc_core.model import vm_snapshot as m_vm_snapshot
from pvc_core.model.base import Document

ROOT: Final = "/pvc/v1"
T = TypeVar("T", bound=Document)


class Key(NamedTuple, Generic[T]):
    """A path and the type of the document there."""

    path: str
    type: type[T]


SPEC: Final = f"{ROOT}/spec"
STATUS: Final = f"{ROOT}/status"
NAME: Final = f"{ROOT}/name"
REF: Final = f"{ROOT}/ref"
LEASE: Final = f"{ROOT}/lease"
GENERATION: Final = f"{ROOT}/generation"
CLAIM: Final = f"{ROOT}/claim"
FENCE: Final = f"{ROOT}/fence"
TASK: Final = f"{ROOT}/task"
USAGE: Final = f"{ROOT}/usage"
RECORD: Final = f"{ROOT}/record"

KINDS: Final = ("vm", "node", "network", "pool", "volume")
"""Kinds that core knows; plugins may add their own."""

VM_SNAPSHOT: Final = "vm-snapshot"
"""Kind of the documents of VMs' snapshots: they have no status, as the tasks on them write the document itself."""

BASE: Final = (
    "/pvc",
    ROOT,
    SPEC,
    STATUS,
    NAME,
    REF,
    LEASE,
    GENERATION,
    CLAIM,
    FENCE,
    TASK,
    USAGE,
    RECORD,
    *(f"{parent}/{kind}" for parent in (SPEC, STATUS, NAME, REF) for kind in KINDS),
    f"{NAME}/mac",
    f"{NAME}/address",
    f"{STATUS}/fence",
    f"{SPEC}/{VM_SNAPSHOT}",
    f"{NAME}/{VM_SNAPSHOT}",
)
"""Nodes that exist from the first start on, parents before children."""

CLUSTER: Final = Key(f"{ROOT}/cluster", m_cluster.Cluster)
PRIMARY: Final = Key(f"{ROOT}/primary", m_node.Primary)


def vm_spec(vm: str) -> Key[m_vm.VmSpec]:
    """What is wanted of a VM."""
    return Key(f"{SPEC}/vm/{vm}", m_vm.VmSpec)


def vm_status(vm: str) -> Key[m_vm.VmStatus]:
    """What a VM is doing."""
    return Key(f"{STATUS}/vm/{vm}", m_vm.VmStatus)


def claim(vm: str) -> Key[m_vm.VmClaim]:
    """Who may run a VM."""
    return Key(f"{CLAIM}/{vm}", m_vm.VmClaim)


def node_spec(node: str) -> Key[m_node.NodeSpec]:
    """What is wanted of a node."""
    return Key(f"{SPEC}/node/{node}", m_node.NodeSpec)


def node_status(node: str) -> Key[m_node.NodeStatus]:
    """What a node reports."""
    return Key(f"{STATUS}/node/{node}", m_node.NodeStatus)


def usage(node: str) -> Key[m_node.NodeUsage]:
    """Figures of a node's guests."""
    return Key(f"{USAGE}/{node}", m_node.NodeUsage)


def lease(node: str) -> Key[m_node.Lease]:
    """A node's ephemeral lease."""
    return Key(f"{LEASE}/{node}", m_node.Lease)


def generation(node: str) -> Key[m_node.LeaseGeneration]:
    """The last generation of a node's lease."""
    return Key(f"{GENERATION}/{node}", m_node.LeaseGeneration)


def fence(node: str) -> Key[m_fence.FenceRecord]:
    """The course of a node's last loss."""
    return Key(f"{FENCE}/{node}", m_fence.FenceRecord)


def fence_health(coordinator: str) -> Key[m_fence.FenceHealth]:
    """What a coordinator knows of all nodes' fence devices."""
    return Key(f"{STATUS}/fence/{coordinator}", m_fence.FenceHealth)


def network_spec(network: str) -> Key[m_network.NetworkSpec]:
    """What is wanted of a network."""
    return Key(f"{SPEC}/network/{network}", m_network.NetworkSpec)


def network_status(network: str, node: str) -> Key[m_network.NetworkStatus]:
    """A network as it is on one node."""
    return Key(f"{STATUS}/network/{network}@{node}", m_network.NetworkStatus)


def pool_spec(pool: str) -> Key[m_storage.PoolSpec]:
    """What is wanted of a pool."""
    return Key(f"{SPEC}/pool/{pool}", m_storage.PoolSpec)


def pool_status(pool: str) -> Key[m_storage.PoolStatus]:
    """A pool as it is."""
    return Key(f"{STATUS}/pool/{pool}", m_storage.PoolStatus)


def volume_spec(volume: str) -> Key[m_storage.VolumeSpec]:
    """What is wanted of a volume."""
    return Key(f"{SPEC}/volume/{volume}", m_storage.VolumeSpec)


def volume_status(volume: str) -> Key[m_storage.VolumeStatus]:
    """A volume as it is."""
    return Key(f"{STATUS}/volume/{volume}", m_storage.VolumeStatus)


def vm_snapshot(snapshot: str) -> Key[m_vm_snapshot.VmSnapshot]:
    """A VM's snapshot."""
    return Key(f"{SPEC}/{VM_SNAPSHOT}/{snapshot}", m_vm_snapshot.VmSnapshot)


def task(task_id: str) -> Key[m_task.Task]:
    """A job."""
    return Key(f"{TASK}/{task_id}", m_task.Task)


def record(plugin: str) -> str:
    """The parent of a plugin's own records; what is below it is the plugin's business."""
    return f"{RECORD}/{plugin}"


def name(kind: str, name_: str) -> str:
    """The index node that holds the id of the object with this name (volumes: ``volume_name``).

    ``name("mac", address)`` holds the id of the VM whose NIC has this MAC address.
    """
    return f"{NAME}/{kind}/{name_}"


def nic_address(network: str, address: str) -> str:
    """The index node that holds the id of the VM whose NIC has this IP address in a network (id)."""
    return name("address", f"{network}@{address}")


def volume_name(pool: str, volume: str) -> str:
    """The index node that holds the id of the volume with this name in the pool of that name."""
    return name("volume", f"{pool}:{volume}")


def vm_snapshot_name(vm: str, snapshot: str) -> str:
    """The index node that holds the id of the snapshot with this name of a VM (id)."""
    return name(VM_SNAPSHOT, f"{vm}:{snapshot}")


def volume_path(child: str) -> str:
    """A volume as people write it, ``pool/volume``, of the last component of its index node's path."""
    return child.replace(":", "/", 1)


def ref(kind: str, id_: str) -> str:
    """The parent of the references to an object.

    It is created with the object; each user creates a child, named with the user's id, in the same
    transaction as its own spec; deleting the object deletes this node, which fails ``NOT_EMPTY``
    while anybody refers to it.  So "is it used" is decided inside the transaction, without a scan.
    """
    return f"{REF}/{kind}/{id_}"


HOLDER: Final = "holder"
"""Name of a volume's reference from the VM that has it as a disk; all others of a volume have the id of a VM's snapshot as name."""


def volume_holder(volume: str) -> str:
    """The one reference of a VM to a volume (id): it holds the id of the VM that has it as a disk."""
    return f"{ref('volume', volume)}/{HOLDER}"


def volume_member(volume: str, snapshot: str) -> str:
    """The reference of a VM's snapshot (id) to a volume (id) that it is made of."""
    return f"{ref('volume', volume)}/{snapshot}"


def parse(path: str) -> tuple[str, str] | None:
    """Return ``(kind, id)`` of the object that a change at ``path`` concerns, or None for the rest.

    A claim concerns its VM; status changes concern nobody (only their writer acts on them).
    """
    parts = path.removeprefix(ROOT + "/").split("/")
    match parts:
        case ["spec", kind, id_]:
            return kind, id_
        case ["claim", vm]:
            return "vm", vm
        case ["task" | "lease" | "fence" as kind, id_]:
            return kind, id_
        case ["ref", "network", id_, _]:
            # Which NICs are in it has changed.
            return "network", id_
        case ["primary"]:
            return "primary", ""
        case ["cluster"]:
            return "cluster", ""
    return None
