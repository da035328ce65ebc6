"""The state tree in a file.

The file is JSON with one node per line: every node of ``/pvc/v1`` but ephemeral ones, all of one
instant except for what the nodes report, which changes all the time.  ``restore`` puts it back.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from pvc_core.model.base import Document
from pvc_core.model.cluster import Cluster
from pvc_core.model.errors import Conflict, InvalidRequest
from pvc_core.store import keys
from pvc_core.store.api import Node, Store
from pvc_core.store.limits import at_or_below, check_path, parent
from pvc_core.store.schema import OLDEST, RESTORING, SCHEMA

FORMAT: Final = "pvc-state"
VERSION: Final = 1
ATTEMPTS: Final = 8
"""Times that a tree that changes meanwhile is looked at again."""

_RESTLESS: Final = (keys.STATUS, keys.USAGE, keys.TASK, keys.LEASE)
_TYPES: Final[Mapping[str, type[Document]]] = {
    keys.CLUSTER.path: keys.CLUSTER.type,
    keys.PRIMARY.path: keys.PRIMARY.type,
    **{
        f"{parent(key.path)}/": key.type
        for key in (
            keys.vm_spec("x"),
            keys.vm_status("x"),
            keys.claim("x"),
            keys.node_spec("x"),
            keys.node_status("x"),
            keys.usage("x"),
            keys.generation("x"),
            keys.network_spec("x"),
            keys.network_status("x", "x"),
            keys.pool_spec("x"),
            keys.pool_status("x"),
            keys.volume_spec("x"),
            keys.volume_status("x"),
            keys.vm_snapshot("x"),
        )
    },
}


class _Item(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A node.  Its value is in one of the three, to the byte; in none when it is empty."""

    path: str
    json: Raw = Raw()
    text: str = ""
    base64: str = ""


class _Header(Struct, frozen=True, kw_only=True):
    format: str
    version: int
    cluster: str
    schema: int
    created: Annotated[float, Meta(ge=0)] = 0.0


class _File(_Header, frozen=True, kw_only=True):
    nodes: list[_Item] = []


class Backup(Struct, frozen=True, kw_only=True):
    """A file that was read and found good."""

    cluster: str
    """Name of the cluster it is of."""
    schema: int
    created: float
    """Seconds since the epoch, on the clock of who made it."""
    digest: str
    """SHA-256 of the file."""
    values: dict[str, bytes]
    """Path -> value, parents before children."""

    def documents(self) -> int:
        """Return how many nodes hold a value."""
        return sum(map(bool, self.values.values()))


def backup(store: Store, *, created: float) -> bytes:
    """Return the file's contents; ``created`` is the time now, in seconds since the epoch.

    Raises Conflict when objects kept changing while they were read or a restore is going on, InvalidRequest when
    there is no tree.
    """
    tree = _settled_tree(store)
    if RESTORING in tree:
        raise Conflict("the state tree is being restored, or that was interrupted: finish the restore first")
    root = tree.get(keys.CLUSTER.path)
    if root is None:
        raise InvalidRequest(f"there is nothing to back up: the state tree has no {keys.CLUSTER.path}")
    cluster = msgspec.json.decode(root.value, type=Cluster)
    header = msgspec.json.encode(
        _Header(format=FORMAT, version=VERSION, cluster=cluster.name, schema=cluster.schema, created=created)
    )
    # One node per line, so that two files can be compared as text.
    lines = [msgspec.json.encode(_item(path, tree[path].value)) for path in sorted(tree) if not tree[path].ephemeral]
    return header.removesuffix(b"}") + b',"nodes":[\n' + b",\n".join(lines) + b"\n]}\n"


def read_backup(data: bytes) -> Backup:
    """Return what a file holds.  Raises InvalidRequest, saying what is wrong with it, for anything but a good one."""
    try:
        file = msgspec.json.decode(data, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"this is not a backup of a state tree, or it is damaged: {error}") from error
    if file.format != FORMAT:
        raise InvalidRequest(f"this is not a backup of a state tree: its format is {file.format!r}, not {FORMAT!r}")
    if file.version != VERSION or not OLDEST <= file.schema <= SCHEMA:
        raise InvalidRequest(
            f"the backup has version {file.version} and layout {file.schema}; this version of PVC reads version {VERSION} "
            f"and layouts {OLDEST} to {SCHEMA}: use the version of PVC that wrote it"
        )
    values: dict[str, bytes] = {}
    for item in sorted(file.nodes, key=lambda item: item.path):
        _check_place(item.path, values)
        values[item.path] = _value(item)
        _check_document(item.path, values[item.path])
    for path in (keys.ROOT, keys.CLUSTER.path):
        if path not in values:
            raise _damaged(f"it has no {path}")
    return Backup(
        cluster=file.cluster,
        schema=file.schema,
        created=file.created,
        digest=hashlib.sha256(data).hexdigest(),
        values=values,
    )


def read_tree(store: Store) -> dict[str, Node]:
    """Return all nodes at and below the root, by path; level by level, so in few round trips.  Not one instant."""
    tree: dict[str, Node] = {}
    level = [keys.ROOT]
    while level:
        found = [(path, node) for path, node in zip(level, store.get_many(level), strict=True) if node is not None]
        tree.update(found)
        level = [path for path, _ in found]
        below = store.children_many(level)
        level = [f"{path}/{name}" for path, names in zip(level, below, strict=True) for name in names]
    return tree


def below(path: str, prefixes: Iterable[str]) -> bool:
    """Return whether a path is one of the prefixes or below one."""
    return any(at_or_below(path, prefix) for prefix in prefixes)


def _settled_tree(store: Store) -> dict[str, Node]:
    before = read_tree(store)
    for _ in range(ATTEMPTS):
        after = read_tree(store)
        # Equal before and after, so it was like this in between, all at one instant.
        if _at_rest(before) == _at_rest(after):
            return after
        before = after
    raise Conflict("the cluster's objects kept changing while they were read: try again when less is going on")


def _at_rest(tree: Mapping[str, Node]) -> dict[str, Node]:
    return {path: node for path, node in tree.items() if not below(path, _RESTLESS)}


def _item(path: str, value: bytes) -> _Item:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return _Item(path=path, base64=base64.b64encode(value).decode())
    if text.startswith("{") and text.endswith("}") and "\n" not in text:
        try:
            msgspec.json.decode(text)
        except msgspec.DecodeError:
            return _Item(path=path, text=text)
        return _Item(path=path, json=Raw(value))
    return _Item(path=path, text=text)


def _value(item: _Item) -> bytes:
    if len(item.json):
        return bytes(item.json)
    if item.base64:
        try:
            return base64.b64decode(item.base64, validate=True)
        except ValueError as error:
            raise _damaged(f"{item.path}: {error}") from error
    return item.text.encode()


def _check_place(path: str, known: Mapping[str, bytes]) -> None:
    try:
        check_path(path)
    except InvalidRequest as error:
        raise _damaged(str(error)) from error
    if not at_or_below(path, keys.ROOT):
        raise _damaged(f"{path!r} is outside of {keys.ROOT}")
    if path in known:
        raise _damaged(f"{path} comes twice")
    if path != keys.ROOT and parent(path) not in known:
        raise _damaged(f"{path} has no parent in it")


def _check_document(path: str, value: bytes) -> None:
    type_ = _TYPES.get(path) or _TYPES.get(f"{parent(path)}/")
    if type_ is None:
        return
    try:
        msgspec.json.decode(value, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(f"{path} is no {type_.__name__}: {error}") from error


def _damaged(what: str) -> InvalidRequest:
    return InvalidRequest(f"the backup is damaged: {what}; nothing was changed")
