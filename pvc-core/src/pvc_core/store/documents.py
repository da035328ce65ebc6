"""Typed documents over a store: JSON by msgspec, compare-and-set by version.

Fields that this version does not know are ignored on reading and kept on writing, so that a cluster
of mixed versions loses nothing.
"""

import logging
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from pvc_core.model.base import Document
from pvc_core.model.errors import PvcError
from pvc_core.store.api import Create, Delete, Node, Put, Store
from pvc_core.store.keys import Key

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Document)


class CorruptDocument(PvcError):
    """A znode does not hold what its path says."""


class Entry(NamedTuple, Generic[T]):
    """A document as read, with what is needed to replace it."""

    key: Key[T]
    value: T
    version: int
    raw: bytes

    def put(self, value: T) -> Put:
        """Return the operation that replaces this document if nobody else did meanwhile."""
        return Put(self.key.path, _encode_over(self.raw, self.value, value), self.version)

    def delete(self) -> Delete:
        """Return the operation that deletes this document if nobody changed it meanwhile."""
        return Delete(self.key.path, self.version)


def encode(value: Document) -> bytes:
    """Return the bytes of a document's znode."""
    return msgspec.json.encode(value)


def create(key: Key[T], value: T, *, ephemeral: bool = False) -> Create:
    """Return the operation that creates a document."""
    return Create(key.path, encode(value), ephemeral)


def decode(key: Key[T], node: Node) -> Entry[T]:
    """Return the document in a node; raise CorruptDocument naming the path and what is wrong."""
    try:
        value = msgspec.json.decode(node.value, type=key.type)
    except msgspec.MsgspecError as error:
        raise CorruptDocument(f"{key.path} does not hold a {key.type.__name__}: {error}") from error
    return Entry(key, value, node.version, node.value)


def maybe(key: Key[T], node: Node | None) -> Entry[T] | None:
    """Return the document in a node that may be absent."""
    return None if node is None else decode(key, node)


def read(store: Store, key: Key[T]) -> Entry[T] | None:
    """Read one document; None when there is none."""
    return maybe(key, store.get(key.path))


def read_many(store: Store, keys: Sequence[Key[T]]) -> list[Entry[T] | None]:
    """Read many documents of one type in a small fixed number of round trips."""
    nodes = store.get_many([key.path for key in keys])
    return [maybe(key, node) for key, node in zip(keys, nodes, strict=True)]


def read_all(store: Store, keys: Sequence[Key[T]]) -> list[Entry[T]]:
    """Read many documents without those that are absent; one that cannot be read is told and left out as well.

    For work on many objects, none of which may stop the rest.
    """
    entries = []
    for key, node in zip(keys, store.get_many([key.path for key in keys]), strict=True):
        if node is None:
            continue
        try:
            entries.append(decode(key, node))
        except CorruptDocument as error:
            log.error("document-unreadable error=%s", error)
    return entries


def _encode_over(raw: bytes, old: Document, new: Document) -> bytes:
    known = msgspec.to_builtins(old)
    stored = msgspec.json.decode(raw)
    unknown = _unknown(stored, known)
    if not unknown:
        return encode(new)
    return msgspec.json.encode(_merge(msgspec.to_builtins(new), unknown))


def _unknown(stored: Any, known: Any) -> dict[str, Any]:
    """Return the part of a stored object that decoding dropped, through nested objects (not through lists)."""
    rest = {}
    for name, value in stored.items():
        if name not in known:
            rest[name] = value
        elif isinstance(value, dict) and isinstance(known[name], dict):
            inner = _unknown(value, known[name])
            if inner:
                rest[name] = inner
    return rest


def _merge(new: dict[str, Any], unknown: dict[str, Any]) -> dict[str, Any]:
    merged = dict(new)
    for name, value in unknown.items():
        if name in merged and isinstance(value, dict) and isinstance(merged[name], dict):
            merged[name] = _merge(merged[name], value)
        elif name not in merged:
            merged[name] = value
    return merged
