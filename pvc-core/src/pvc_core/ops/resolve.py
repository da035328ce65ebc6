"""Names to documents, with did-you-mean."""

import re
from collections.abc import Callable
from typing import Final, TypeVar

from pvc_core.model.base import Document
from pvc_core.model.errors import Conflict, InvalidRequest, NotFound
from pvc_core.model.names import did_you_mean, not_found
from pvc_core.model.network import NetworkSpec
from pvc_core.model.node import NodeSpec
from pvc_core.model.storage import PoolSpec, VolumeSpec
from pvc_core.model.vm import VmSpec
from pvc_core.ops.context import Ops
from pvc_core.store import keys
from pvc_core.store.documents import Entry, decode, read
from pvc_core.store.keys import Key

T = TypeVar("T", bound=Document)

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""What may stand in a path; anything else names nothing."""


def vm(ops: Ops, text: str) -> Entry[VmSpec]:
    """Return the VM with this name or id; raises NotFound."""
    return _named(ops, "vm", "VM", text, keys.vm_spec)


def network(ops: Ops, text: str) -> Entry[NetworkSpec]:
    """Return the network with this name or id; raises NotFound."""
    return _named(ops, "network", "network", text, keys.network_spec)


def pool(ops: Ops, text: str) -> Entry[PoolSpec]:
    """Return the pool with this name or id; raises NotFound."""
    return _named(ops, "pool", "storage pool", text, keys.pool_spec)


def node(ops: Ops, text: str) -> Entry[NodeSpec]:
    """Return the node with this name; raises NotFound."""
    if is_plain(text):
        entry = read(ops.store, keys.node_spec(text))
        if entry is not None:
            return entry
    raise not_found("node", text, ops.store.children(f"{keys.SPEC}/node"))


def volume(ops: Ops, text: str) -> Entry[VolumeSpec]:
    """Return the volume ``pool/volume``, or with this id; raises NotFound."""
    pool_name, slash, name = text.partition("/")
    if not slash:
        entry = read(ops.store, keys.volume_spec(text)) if is_plain(text) else None
        if entry is not None:
            return entry
        known = volume_paths(ops)
        same = [item for item in known if item.partition("/")[2] == text]
        hint = f"; did you mean {same[0]!r}?" if same else did_you_mean(text, known)
        raise InvalidRequest(f"{text!r} is not a volume: write POOL/VOLUME{hint}")
    if is_plain(pool_name) and is_plain(name):
        index = ops.store.get(keys.volume_name(pool_name, name))
        entry = read(ops.store, keys.volume_spec(index.value.decode())) if index is not None else None
        if entry is not None and entry.value.name == name:
            return entry
        if entry is not None:
            raise NotFound(f"there is no volume {text} any more: it is being renamed to {pool_name}/{entry.value.name}")
    known_pools = ops.store.children(f"{keys.NAME}/pool")
    if pool_name not in known_pools:
        raise not_found("storage pool", pool_name, known_pools)
    raise not_found("volume", text, volume_paths(ops))


def volume_paths(ops: Ops) -> list[str]:
    """Return all volumes as ``pool/volume``."""
    return [keys.volume_path(child) for child in ops.store.children(f"{keys.NAME}/volume")]


def pattern(text: str, what: str = "name") -> re.Pattern[str]:
    """Return a compiled regular expression; raises InvalidRequest."""
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidRequest(f"{what} {text!r} is not a regular expression: {error}") from error


def refuse_deleting(what: str, name: str, *, deleting: bool) -> None:
    """Raise Conflict when the object is being removed."""
    if deleting:
        raise Conflict(f"{what} {name!r} is being removed; nothing was changed")


def is_plain(text: str) -> bool:
    """Say whether a text can be a name or id at all, and so may stand in a path."""
    return _PLAIN.fullmatch(text) is not None


def _named(ops: Ops, kind: str, what: str, text: str, key: Callable[[str], Key[T]]) -> Entry[T]:
    if is_plain(text):
        by_name, by_id = ops.store.get_many([keys.name(kind, text), key(text).path])
        if by_name is not None:
            entry = read(ops.store, key(by_name.value.decode()))
            if entry is not None:
                return entry
        if by_id is not None:
            return decode(key(text), by_id)
    raise not_found(what, text, ops.store.children(f"{keys.NAME}/{kind}"))
