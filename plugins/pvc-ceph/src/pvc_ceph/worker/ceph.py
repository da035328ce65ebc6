"""The connection to Ceph: the only module that imports its bindings.

Their time limits: ``client_mount_timeout`` and ``rados_mon_op_timeout`` bound what is asked of monitors, so an error
says that they do not answer.  ``rados_osd_op_timeout`` stays off: a write that timed out may be applied later, and
librbd's own state is undefined after one.  What OSDs do not answer ends when the driver kills this process.
"""

import contextlib
import errno
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import rados
import rbd
from rados import Ioctx
from rbd import RBD, Image, ImageExists, ImageNotFound, NoSpace

from pvc_ceph.protocol import ClientBlocked, Open
from pvc_core.plugin import AuthFailed, DriverError, NotReady, ObjectBusy, ObjectExists, ObjectMissing

__all__ = ["RBD", "Cluster", "Image", "ImageExists", "ImageNotFound", "Ioctx", "NoSpace", "ceph_errors"]

FEATURES: Final = (
    rbd.RBD_FEATURE_LAYERING
    | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
    | rbd.RBD_FEATURE_OBJECT_MAP
    | rbd.RBD_FEATURE_FAST_DIFF
    | rbd.RBD_FEATURE_DEEP_FLATTEN
)
EXCLUSIVE: Final = rbd.RBD_LOCK_MODE_EXCLUSIVE
_MOUNT_S: Final = 3
_MON_S: Final = 4
_OPTIONS: Final = {
    "client_mount_timeout": str(_MOUNT_S),
    "rados_mon_op_timeout": str(_MON_S),
    "log_file": "",
    "admin_socket": "",
    "rbd_cache": "false",
    # Clones that do not forbid their snapshot to be unprotected, and live on when it is renamed.
    "rbd_default_clone_format": "2",
}
_PAGE: Final = 1000


class Cluster:
    """A Ceph cluster.  Connected at the first use.  For one thread, but for ``image``s of their own."""

    def __init__(self, settings: Open, connected: Callable[[str], None] = lambda _: None) -> None:
        """``connected`` is told the address by which Ceph knows this process."""
        self.settings: Final = settings
        self._connected: Final = connected
        self._rados: rados.Rados | None = None
        self._pools: dict[str, Ioctx] = {}

    @property
    def connection(self) -> rados.Rados:
        """The connection.  Raises NotReady, AuthFailed."""
        if self._rados is None:
            self._rados = self._connect()
            self._connected(self._rados.get_addrs())
        return self._rados

    def close(self) -> None:
        """Let go of everything."""
        for ioctx in self._pools.values():
            ioctx.close()
        self._pools.clear()
        if self._rados is not None:
            self._rados.shutdown()
            self._rados = None

    def pool(self, name: str) -> Ioctx:
        """Return the way to a pool's objects; raise ObjectMissing when Ceph has no such pool."""
        if name not in self._pools:
            try:
                ioctx = self.connection.open_ioctx(name)
            except rados.ObjectNotFound:
                raise ObjectMissing(f"Ceph has no pool {name!r}") from None
            # In a full pool what takes space fails at once, instead of waiting for room, and what frees some works.
            ioctx.set_osdmap_full_try()
            self._pools[name] = ioctx
        return self._pools[name]

    def forget_pool(self, name: str) -> None:
        """Do not use what is known of a pool any more: it was deleted, and another of its name is another pool."""
        ioctx = self._pools.pop(name, None)
        if ioctx is not None:
            ioctx.close()

    def command(self, prefix: str, body: bytes = b"", /, **arguments: Any) -> Any:
        """Ask the monitors and return their answer, decoded from JSON; None when it has no body.

        ``body`` goes along with the words.  Raises ObjectMissing, ObjectExists, ObjectBusy, AuthFailed, NotReady and
        DriverError with their words.
        """
        return self._command(self.connection.mon_command, "monitors", {"prefix": prefix, **arguments}, body)

    def mgr_command(self, prefix: str, **arguments: Any) -> Any:
        """Ask the active manager, as ``command`` does the monitors."""
        return self._command(self.connection.mgr_command, "manager", {"prefix": prefix, **arguments})

    def judgement(self, prefix: str, **arguments: Any) -> tuple[Any, str]:
        """Ask the active manager whether something may be done; return its answer, and why not, empty when it may.

        Raises what ``command`` does, but for a "not now" (EBUSY, EAGAIN).
        """
        words = json.dumps({"format": "json", "prefix": prefix, **arguments})
        status, body, said = self.connection.mgr_command(words, b"", _MON_S)
        if abs(status) not in (0, errno.EBUSY, errno.EAGAIN):
            raise _refusal(abs(status), f"Ceph's manager refused {prefix!r}: {said or f'error {abs(status)}'}")
        return _decode(body), " ".join(said.split()) if status else ""

    def _command(
        self,
        ask: Callable[[str, bytes, int], tuple[int, bytes, str]],
        whom: str,
        words: Mapping[str, Any],
        body: bytes = b"",
    ) -> Any:
        status, answer, said = ask(json.dumps({"format": "json", **words}), body, _MON_S)
        if status:
            number = abs(status)  # an answer of the manager may have it without its sign
            reason = said or errno.errorcode.get(number) or f"error {number}"
            raise _refusal(number, f"Ceph's {whom} refused {words['prefix']!r}: {reason}")
        return _decode(answer)

    def _connect(self) -> rados.Rados:
        settings = self.settings
        who = f"client.{settings.user}"
        options = _OPTIONS | ({"keyring": settings.keyring} if settings.keyring else {})
        try:
            connection = rados.Rados(name=who, conffile=settings.conf, conf=options)
        except rados.Error as error:
            raise NotReady(f"Ceph's configuration {settings.conf} cannot be read: {error}") from error
        try:
            connection.connect()
        except rados.TimedOut:
            hosts = connection.conf_get("mon_host") or f"mon_host is not set in {settings.conf}"
            raise NotReady(f"no monitor of the Ceph cluster answers within {_MOUNT_S} s ({hosts})") from None
        except (rados.PermissionError, rados.PermissionDeniedError):
            raise AuthFailed(
                f"Ceph refuses the key of {who}; it is read from {connection.conf_get('keyring')}"
            ) from None
        except rados.ObjectNotFound:
            raise AuthFailed(f"there is no key of {who} in {connection.conf_get('keyring')}") from None
        except rados.Error as error:
            raise NotReady(f"cannot connect to Ceph as {who}: {error}") from error
        return connection


def write_omap(
    ioctx: Ioctx, name: str, key: str, old: bytes, new: bytes, *, others: Sequence[tuple[str, bytes]] = ()
) -> bool:
    """Replace the value of an object's key, if it is ``old``; empty means absent.  Returns False when it is not.

    ``others`` are keys written along with it.  The object is made when it does not exist.
    """
    while True:
        with rados.WriteOpCtx() as operation:
            operation.omap_cmp(key, old.decode(), rados.LIBRADOS_CMPXATTR_OP_EQ)
            if new:
                ioctx.set_omap(operation, (key,), (new,))
            else:
                ioctx.remove_omap_keys(operation, (key,))
            if others:
                ioctx.set_omap(operation, tuple(k for k, _ in others), tuple(v for _, v in others))
            try:
                ioctx.operate_write_op(operation, name)
            except rados.ObjectNotFound:
                pass
            except rados.Error as error:
                if error.errno == errno.ECANCELED:
                    return False
                raise
            else:
                return True
        make_object(ioctx, name)


def noted_id(ioctx: Ioctx, name: str) -> str:
    """Return the id of the image that is opened by this name, whatever the pool's directory says; empty: none.

    https://docs.ceph.com/en/pacific/dev/rbd-layering/ and librbd's ``rbd_id.<name>`` objects: a string with its length.
    """
    try:
        return ioctx.read(f"rbd_id.{name}")[4:].decode()
    except rados.ObjectNotFound:
        return ""


def forget_name(ioctx: Ioctx, name: str, image_id: str) -> None:
    """Remove what says that a name is that of an image with this id, if anything says so."""
    if noted_id(ioctx, name) == image_id:
        with contextlib.suppress(rados.ObjectNotFound):
            ioctx.remove_object(f"rbd_id.{name}")


def make_object(ioctx: Ioctx, name: str) -> None:
    """Make an empty object unless it exists."""
    with rados.WriteOpCtx() as operation:
        operation.new(rados.LIBRADOS_CREATE_IDEMPOTENT)
        ioctx.operate_write_op(operation, name)


def read_omap(ioctx: Ioctx, name: str) -> dict[str, bytes]:
    """Return all keys of an object with their values, a thousand in each request; none when it does not exist."""
    found: dict[str, bytes] = {}
    last = ""
    while True:
        with rados.ReadOpCtx() as operation:
            values, _ = ioctx.get_omap_vals(operation, last, "", _PAGE)
            try:
                ioctx.operate_read_op(operation, name)
            except rados.ObjectNotFound:
                return {}
            page = dict(values)
        found |= page
        if len(page) < _PAGE:
            return found
        last = max(page)


def read_omap_key(ioctx: Ioctx, name: str, key: str) -> bytes:
    """Return the value of an object's key, empty when there is none."""
    with rados.ReadOpCtx() as operation:
        values, _ = ioctx.get_omap_vals_by_keys(operation, (key,))
        try:
            ioctx.operate_read_op(operation, name)
        except rados.ObjectNotFound:
            return b""
        return dict(values).get(key, b"")


def _decode(answer: bytes) -> Any:
    text = answer.decode("utf-8", "replace").lstrip()
    # "osd blocklist ls" of Ceph 16 appends a second value to its JSON.
    return json.JSONDecoder().raw_decode(text)[0] if text else None


@contextlib.contextmanager
def ceph_errors(what: str) -> Iterator[None]:
    """Put what was worked on before the words of Ceph's own errors, and give them their kind."""
    try:
        yield
    except (rados.Error, rbd.Error) as error:
        raise _refusal(getattr(error, "errno", 0), f"{what}: {_words(error)}") from error


def _words(error: Exception) -> str:
    return str(error).strip() or type(error).__name__


def _refusal(number: int, message: str) -> DriverError:
    match number:
        case errno.ENOENT:
            return ObjectMissing(message)
        case errno.EEXIST:
            return ObjectExists(message)
        case errno.EBUSY | errno.ENOTEMPTY | errno.EROFS:
            return ObjectBusy(message)
        case errno.EACCES | errno.EPERM:
            return AuthFailed(message)
        case errno.ESHUTDOWN:
            return ClientBlocked(f"{message}; Ceph has blocked this node's address or this client")
        case errno.ETIMEDOUT:
            return NotReady(f"{message}; its monitors did not answer within {_MON_S} s")
        case errno.ENOSPC | errno.EDQUOT:
            return DriverError(f"{message}; there is no room: see pvc storage util")
        case errno.EINVAL | errno.ENOTSUP | errno.ERANGE:
            return DriverError(message, retryable=False)
        case _:
            return DriverError(message)
