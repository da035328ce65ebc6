"""Putting a backup of the state tree back.

What is in the tree and in the file falls into three classes:

- *Wanted*: settings, specs, names, references, and what plugins keep.  Made equal to the file: what
  the file lacks is removed, except for nodes that are alive.
- *Observed*: status, usage, lease generations, claims, the primary.  What is in the tree is newer than
  the file, so it stays; the generation of a node's lease also when the file lacks the node, as it never runs backwards.  Into a tree with objects a claim comes back without its holder, only so that
  its epoch does not run backwards: a claim says who runs a VM at this moment, and an old one beside a
  guest that runs elsewhere could have it run twice.  Into one without, epochs and generations come back raised by ``AHEAD``.
- *Momentary*: leases, fences and tasks.  Never restored: a job or a fence of that day must not run again.  But what a
  fencing left to be done (domains to end, storage to open again) is, into a tree without objects.

A restore is a difference, carried out in several transactions that each check what they replace.  It
may be interrupted: a mark stays in the tree, no daemon starts on it, and restoring the same file goes on.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from pvc_core.model.errors import Conflict, InUse
from pvc_core.model.fence import FenceRecord, FenceStage
from pvc_core.model.vm import VmClaim
from pvc_core.store import documents, keys
from pvc_core.store.api import Check, CheckAbsent, Create, Delete, Node, Operation, Put, Store, TransactionFailed
from pvc_core.store.backup import ATTEMPTS, Backup, below, read_tree
from pvc_core.store.limits import MAX_REQUEST, parent, request_size
from pvc_core.store.schema import RESTORING

log = logging.getLogger(__name__)

BATCH: Final = 500
"""Operations in one transaction."""
AHEAD: Final = 100_000
"""What epochs of claims and generations of leases are raised by in a new tree: storage may remember higher ones than the
file has, and refuses lower ones."""

_MOMENTARY: Final = (keys.LEASE, keys.FENCE, keys.TASK, RESTORING)
_OBSERVED: Final = (keys.STATUS, keys.USAGE, keys.GENERATION, keys.CLAIM, keys.PRIMARY.path)
_FRESH: Final = "fresh"
_OVER: Final = "over"


class Restored(Struct, frozen=True, kw_only=True):
    """What a restore did, in nodes of the tree."""

    created: int = 0
    replaced: int = 0
    removed: int = 0


def restore(store: Store, saved: Backup, *, force: bool = False) -> Restored:
    """Make the tree what the backup says; see the module for what that means.

    Without ``force`` only into a tree without objects and without live nodes.  Raises InUse, saying what is there;
    also with ``force`` when a VM that the backup does not know has a claim, so runs somewhere.  Raises Conflict when
    other clients keep changing what is restored: repeat it with the same file.
    """
    fresh = _begin(store, saved, force=force)
    done = Restored()
    for _ in range(ATTEMPTS):
        tree = read_tree(store)
        _demand_known_guests(tree, saved)
        groups = list(_Plan(saved.values, tree, fresh).operations())
        try:
            if not groups:
                store.commit(Delete(RESTORING))
                log.info("state-restored created=%d replaced=%d removed=%d", done.created, done.replaced, done.removed)
                return done
            for batch in _batches(groups):
                store.commit(*batch)
                done = _count(done, batch)
        except TransactionFailed as error:
            log.info("restore-overtaken path=%s failure=%s", error.operation.path, error.failure.value)
    raise Conflict(
        "the state tree was changed all the time while it was restored, and is half restored: stop what changes it and "
        "repeat the restore with the same file"
    )


def _begin(store: Store, saved: Backup, *, force: bool) -> bool:
    """Check that the restore may be done and leave the mark; return whether the tree was without objects."""
    tree = read_tree(store)
    old = tree.get(RESTORING)
    if old is not None:
        digest, _, mode = old.value.decode().partition(" ")
        if digest == saved.digest:
            return mode == _FRESH
        if not force:
            raise InUse("a restore of another file was interrupted: repeat that one, or force this one")
    _demand_known_guests(tree, saved)
    fresh = not _objects(tree) and not _alive(tree) and old is None
    if not fresh and not force:
        _refuse(tree)
    mark = f"{saved.digest} {_FRESH if fresh else _OVER}".encode()
    missing = [path for path in (parent(keys.ROOT), keys.ROOT) if store.get(path) is None]
    first = Create(RESTORING, mark) if old is None else Put(RESTORING, mark, old.version)
    try:
        store.commit(*(Create(path, b"") for path in missing), first)
    except TransactionFailed as error:
        raise Conflict(
            "the state tree was changed at the same moment, perhaps by another restore: repeat it"
        ) from error
    return fresh


class _Plan(NamedTuple):
    """The difference between a backup and a tree."""

    saved: Mapping[str, bytes]
    tree: Mapping[str, Node]
    fresh: bool

    def operations(self) -> Iterator[list[Operation]]:
        """Yield what is still to be done, in groups that belong into one transaction.

        Parents are created first, children deleted first.
        """
        for path, value in self.saved.items():
            yield from ([operation] for operation in self._set(path, value))
        alive = set(_alive(self.tree))
        for path in sorted(self.tree, reverse=True):
            if self._superfluous(path, alive):
                yield [*self._guard(path), Delete(path, self.tree[path].version)]

    def _guard(self, path: str) -> Iterator[Operation]:
        """Yield the check that nobody has begun to run a VM whose spec is to go."""
        if parent(path) == parent(keys.vm_spec("x").path):
            claim = keys.claim(path.rpartition("/")[2]).path
            yield Check(claim, self.tree[claim].version) if claim in self.tree else CheckAbsent(claim)

    def _set(self, path: str, value: bytes) -> Iterator[Operation]:
        node = self.tree.get(path)
        if below(path, _MOMENTARY) and path not in keys.BASE:
            debts = _debts(value) if self.fresh and node is None and parent(path) == keys.FENCE else None
            if debts is not None:
                yield Create(path, debts)
            return
        if node is None:
            yield Create(path, self._as_it_begins(parent(path), value))
        elif not below(path, _OBSERVED) or (self.fresh and path == keys.PRIMARY.path):
            value = _with_newer_generation(node.value, value)
            if value != node.value:
                yield Put(path, value, node.version)

    def _as_it_begins(self, area: str, value: bytes) -> bytes:
        if area == keys.CLAIM:
            return _raised(value, "epoch") if self.fresh else _vacant(value)
        return _raised(value, "generation") if area == keys.GENERATION and self.fresh else value

    def _superfluous(self, path: str, alive: set[str]) -> bool:
        if path in self.saved or path in keys.BASE or self.tree[path].ephemeral or below(path, _MOMENTARY):
            return False
        match path.removeprefix(f"{keys.ROOT}/").split("/"):
            case ["spec" | "status" | "name" | "ref", "node", node, *_] | ["usage", node]:
                return node not in alive
            case ["claim", vm]:
                return keys.vm_spec(vm).path not in self.saved and not _held(self.tree, vm)
            case ["status", kind, id_]:
                return f"{keys.SPEC}/{kind}/{id_.partition('@')[0]}" not in self.saved
        return not below(path, _OBSERVED)


def _objects(tree: Mapping[str, Node]) -> list[str]:
    """Return the specs and claims there are."""
    return [path for path in tree if parent(path) == keys.CLAIM or parent(parent(path)) == keys.SPEC]


def _alive(tree: Mapping[str, Node]) -> list[str]:
    """Return the nodes that hold a lease."""
    return [path.rpartition("/")[2] for path in tree if parent(path) == keys.LEASE]


def _refuse(tree: Mapping[str, Node]) -> None:
    alive = _alive(tree)
    if alive:
        raise InUse(f"the cluster is alive: {_some(alive)} hold a lease; stop their daemons, or force the restore")
    objects = _objects(tree)
    raise InUse(
        f"the state tree is not empty: it has {len(objects)} specs and claims, such as {objects[0]}; "
        "force the restore to replace them"
    )


def _demand_known_guests(tree: Mapping[str, Node], saved: Backup) -> None:
    claimed = [vm for vm in (path.rpartition("/")[2] for path in tree if parent(path) == keys.CLAIM) if _held(tree, vm)]
    unknown = [vm for vm in claimed if keys.vm_spec(vm).path not in saved.values]
    if unknown:
        raise InUse(
            f"VMs that the backup does not know run now: {_some(unknown)}; stop them first, as nobody could afterwards"
        )


def _vacant(claim: bytes) -> bytes:
    return documents.encode(msgspec.structs.replace(msgspec.json.decode(claim, type=VmClaim), node="", migration=None))


def _raised(document: bytes, field: str) -> bytes:
    """Return a document with a number in it raised by ``AHEAD``; as it is when it cannot be read."""
    try:
        found = msgspec.json.decode(document)
        return msgspec.json.encode({**found, field: found[field] + AHEAD})
    except (msgspec.DecodeError, TypeError, KeyError):
        return document


def _debts(record: bytes) -> bytes | None:
    """Return what is left of a fence record: what its node and the primary still have to do, and nothing that proves."""
    try:
        old = msgspec.json.decode(record, type=FenceRecord)
    except msgspec.MsgspecError as error:
        log.warning("fence-record-not-restored error=%s", error)
        return None
    if not old.dirty and not old.blocked:
        return None
    left = FenceRecord(
        node=old.node,
        lease=old.lease,
        stage=FenceStage.CANCELLED,
        opened=old.opened,
        changed=old.changed,
        events=old.events,
        drained=old.drained,
        dirty=old.dirty,
        blocked=old.blocked,
    )
    return documents.encode(left)


def _held(tree: Mapping[str, Node], vm: str) -> bool:
    key = keys.claim(vm)
    return documents.decode(key, tree[key.path]).value.node != ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _with_newer_generation(old: bytes, new: bytes) -> bytes:
    """Return ``new``, with a generation above that of ``old`` if it differs: by it the nodes see that it is new."""
    try:
        before, after = msgspec.json.decode(old), msgspec.json.decode(new)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return new
    for document in (before, after):
        if not isinstance(document, dict) or not isinstance(document.get("generation"), int):
            return new
    if {**before, "generation": 0} == {**after, "generation": 0}:
        return old
    after["generation"] = max(after["generation"], before["generation"] + 1)
    return msgspec.json.encode(after)


def _batches(groups: Iterable[list[Operation]]) -> Iterator[list[Operation]]:
    batch: list[Operation] = []
    size = 0
    for group in groups:
        more = sum(map(request_size, group))
        if batch and (size + more > MAX_REQUEST or len(batch) >= BATCH):
            yield batch
            batch, size = [], 0
        batch += group
        size += more
    if batch:
        yield batch


def _count(done: Restored, batch: Iterable[Operation]) -> Restored:
    kinds = [type(operation) for operation in batch]
    return Restored(
        created=done.created + kinds.count(Create),
        replaced=done.replaced + kinds.count(Put),
        removed=done.removed + kinds.count(Delete),
    )
