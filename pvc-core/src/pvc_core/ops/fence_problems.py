"""What is wrong about fencing, in sentences: before it is needed, and while it goes on."""

from collections.abc import Iterator
from typing import Final

from pvc_core.model.fence import FenceRecord, FenceStage, Means
from pvc_core.ops.fence_facts import FenceFacts, blocking_drivers
from pvc_core.plan.fence_outlook import Fencer, Subject, outlook

_NAMED: Final = 5
"""So many VMs are named in a problem; more are counted."""
_NOT_SET_UP: Final = (
    "fencing is not set up: if a node is lost, its VMs are not started elsewhere until somebody confirms its death; "
    "begin with: pvc fence level add"
)


def unfenceable(facts: FenceFacts) -> list[str]:
    """Return what would keep nodes from being fenced, or their VMs from being started elsewhere.

    Nothing for a cluster of one node, or one in which only an operator's word shall count; one sentence for all nodes
    where fencing is not set up at all.
    """
    if len(facts.nodes) < 2 or not facts.cluster.recovery:
        return []
    if not any(_set_up(facts, name) for name in facts.nodes):
        return [_NOT_SET_UP]
    return [problem for name in sorted(facts.nodes) for problem in _node(facts, name)]


def lost(facts: FenceFacts, node: str) -> str:
    """Return what is done about a node whose lease is gone, one sentence."""
    record = facts.record(node)
    return f"node {node} is lost: {course(record) if record is not None else 'its lease is gone'}"


def course(record: FenceRecord) -> str:
    """Return how far a fencing is, and what it waits for."""
    proofs = ", ".join(proof.kind for proof in record.proofs)
    words = {
        FenceStage.SUSPECTED: "its lease is gone, and it is fenced unless it comes back",
        FenceStage.FENCING: "a proof of its death is being sought",
        FenceStage.PROVEN: f"its death is proven ({proofs}), its VMs are being started elsewhere",
        FenceStage.RECOVERED: f"its death is proven ({proofs}), its VMs were taken from it",
    }.get(record.stage, "its lease is gone")
    if not record.waits_for:
        return words
    if record.proofs:
        return f"{words}; it waits: {record.waits_for}"
    rounds = f" after {record.round} round{'' if record.round == 1 else 's'}" if record.round else ""
    return f"no proof of its death{rounds}, so its VMs are not started elsewhere: {record.waits_for}"


def returned(facts: FenceFacts) -> list[str]:
    """Return what is left to do about nodes that are back after a fencing."""
    result: list[str] = []
    for name, record in sorted(facts.records.items()):
        node = facts.nodes.get(name)
        if node is None or not node.alive or record.lease == node.last.generation:
            continue
        if record.waits_for:
            result.append(f"node {name} is back after it was fenced: {record.waits_for}")
        elif record.drained and node.spec.scheduling == "drain" and not facts.cluster.return_after_fence:
            result.append(f"node {name} is back after it was fenced, and takes no VMs until: pvc node ready {name}")
    return result


def _set_up(facts: FenceFacts, name: str) -> bool:
    """Say whether a node has any of what the cluster allows."""
    node = facts.nodes[name]
    has: dict[Means, bool] = {
        "power": bool(node.spec.fence_levels),
        "storage": bool(blocking_drivers(node)),
        "watchdog": node.last.watchdog_down_s > 0,
    }
    return any(has[means] for means in facts.cluster.recovery)


def _node(facts: FenceFacts, name: str) -> Iterator[str]:
    node = facts.nodes[name]
    if not node.alive or node.spec.maintenance:
        return
    subject = facts.subject(name)
    if not subject.fencers:
        return  # without another coordinator nothing at all is done, and that is a problem of its own
    expected = outlook(subject)
    if expected.expected == "no":
        why = "; ".join(f"{prospect.means}: {prospect.reason}" for prospect in expected.prospects)
        yield f"node {name} could not be fenced, so its VMs would not be started elsewhere: {why}"
        return
    if expected.expected == "yes" and expected.uncovered:
        more = f" and {len(expected.uncovered) - _NAMED} more" if len(expected.uncovered) > _NAMED else ""
        vms = ", ".join(expected.uncovered[:_NAMED])
        yield f"node {name}: VMs that no proof of its death would cover: {vms}{more}"
    if "power" in facts.cluster.recovery:
        yield from _devices(subject)


def _devices(subject: Subject) -> Iterator[str]:
    """Yield the devices that some coordinator found unusable, with whom when others can use them."""
    for number, level in enumerate(subject.levels, 1):
        for index, device in enumerate(level.devices, 1):
            errors = {
                fencer.name: error
                for fencer in (*subject.fencers, *subject.others)
                if (error := _error(fencer, number, index, device.driver))
            }
            if not errors:
                continue
            everywhere = len(errors) == len(subject.fencers) + len(subject.others)
            where = "" if everywhere else f" cannot be used from {', '.join(errors)}"
            yield f"node {subject.node}: fence level {number} ({device.driver}){where}: {next(iter(errors.values()))}"


def _error(fencer: Fencer, level: int, device: int, driver: str) -> str:
    """Return what a coordinator found; a driver that does not work there is a condition of its own."""
    health = fencer.health(level, device, driver) if driver in fencer.drivers else None
    return health.error if health is not None else ""
