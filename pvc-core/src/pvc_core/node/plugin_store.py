"""What plugins may read and write of the state store: records of their own, and which NICs are in a network."""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pvc_core.model.errors import InvalidRequest, Unavailable
from pvc_core.plugin.context import NetworkNic, Records
from pvc_core.store import keys
from pvc_core.store.api import ANY, Create, Delete, Failure, Operation, Put, Store, TransactionFailed
from pvc_core.store.documents import CorruptDocument, read, read_many

_WORD: Final = re.compile(r"[A-Za-z0-9._:@-]{1,200}")
_MAX_BYTES: Final = 100 * 1024

Guard = Callable[[], tuple[Operation, ...]]
"""Returns the checks that make a transaction fail unless this node has its lease; raises LeaseLost."""


class PluginStore:
    """The store as plugins see it.  Made before the daemon; it writes nothing until ``bind`` gave it the lease."""

    def __init__(self, store: Store) -> None:
        self._store: Final = store
        self._guard: Guard | None = None

    def bind(self, guard: Guard) -> None:
        """Write under this node's lease from now on."""
        self._guard = guard

    def guard(self) -> tuple[Operation, ...]:
        """Return the checks of every write; raises Unavailable before there was a lease, LeaseLost without one."""
        if self._guard is None:
            raise Unavailable("this node has no lease yet: nothing can be written")
        return self._guard()

    def records(self, plugin: str) -> Records:
        """Return the records of a plugin."""
        return _Records(self._store, keys.record(plugin), self.guard)

    def nodes(self) -> list[str]:
        """Return the names of all nodes of the cluster, alive or not."""
        return self._store.children(f"{keys.SPEC}/node")

    def network_nics(self, network: str) -> list[NetworkNic]:
        """Return the NICs in a network (id), by VM and in its order; none when there is no such network."""
        spec = read(self._store, keys.network_spec(network))
        if spec is None:
            return []
        vms = self._store.children(keys.ref("network", network))
        specs = read_many(self._store, [keys.vm_spec(vm) for vm in vms])
        claims = read_many(self._store, [keys.claim(vm) for vm in vms])
        return [
            NetworkNic(
                vm=entry.value.id, vm_name=entry.value.name, nic=nic, node=claim.value.node if claim is not None else ""
            )
            for entry, claim in zip(specs, claims, strict=True)
            if entry is not None
            for nic in entry.value.nics
            if nic.network == spec.value.name
        ]


class _Records:
    def __init__(self, store: Store, root: str, guard: Guard) -> None:
        self._store = store
        self._root = root
        self._guard = guard

    def get(self, name: str) -> Any:
        path = self._path(name)
        node = self._store.get(path)
        return None if node is None else _value(path, node.value)

    def below(self, name: str) -> dict[str, Any]:
        path = self._path(name)
        words = self._store.children(path)
        nodes = self._store.get_many([f"{path}/{word}" for word in words])
        found = {word: _value(path, node.value) for word, node in zip(words, nodes, strict=True) if node is not None}
        return {word: value for word, value in found.items() if value is not None}

    def put(self, name: str, value: Any) -> None:
        path, encoded = self._path(name), msgspec.json.encode(value)
        if len(encoded) > _MAX_BYTES:
            raise InvalidRequest(f"record {name!r} has {len(encoded)} bytes; at most {_MAX_BYTES} are kept")
        try:
            self._store.commit(Put(path, encoded, ANY), *self._guard())
        except TransactionFailed as error:
            if error.failure is not Failure.NO_NODE or error.operation.path != path:
                raise
            self._make(path, encoded)

    def delete(self, name: str) -> None:
        path = self._path(name)
        for word in self._store.children(path):
            self.delete(f"{name}/{word}")
        try:
            self._store.commit(Delete(path), *self._guard())
        except TransactionFailed as error:
            if error.failure is not Failure.NO_NODE or error.operation.path != path:
                raise

    def _make(self, path: str, value: bytes) -> None:
        """Create a node and those above it that are missing."""
        words = path.removeprefix(f"{keys.RECORD}/").split("/")
        places = [f"{keys.RECORD}/{'/'.join(words[:end])}" for end in range(1, len(words) + 1)]
        missing = [place for place, node in zip(places, self._store.get_many(places), strict=True) if node is None]
        self._store.commit(*(Create(place, value if place == path else b"") for place in missing), *self._guard())

    def _path(self, name: str) -> str:
        words = name.split("/")
        wrong = next((word for word in words if not _WORD.fullmatch(word) or word in (".", "..")), None)
        if wrong is not None:
            raise InvalidRequest(f"{name!r} cannot name a record: {wrong!r} is no word of letters, digits and ._:@-")
        return f"{self._root}/{name}"


def _value(path: str, data: bytes) -> Any:
    """Return what a node holds; None for one that only has others below it."""
    try:
        return msgspec.json.decode(data) if data else None
    except msgspec.MsgspecError as error:
        raise CorruptDocument(f"{path} holds no JSON: {error}") from error
