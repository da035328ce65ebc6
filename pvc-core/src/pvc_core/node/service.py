"""The node's own service: consoles and their logs, read where they are, and image files that are sent here.

HTTP/1.1, one request per connection:

``GET /v1/health``                                     whether the daemon works; needs no token
``GET /v1/vm/<id>/console.log?offset=N&limit=M``       bytes of the console's log; header ``X-Next-Offset``
``GET /v1/vm/<id>/console.log?tail=LINES``             its last lines
``GET /v1/vm/<id>/console`` (Upgrade: pvc-console)     101, then the serial console's bytes both ways

``POST /v1/query/<name>``                              what a plugin answers to a JSON object of arguments

``POST /v1/upload``                                    a new file of ``name``, ``size_bytes``, ``data_bytes``: its ``path``
``PUT /v1/upload/<id>?offset=N``                       a part of it; header ``X-SHA256``
``DELETE /v1/upload/<id>``                             the file will not be used

All but the first need ``Authorization: Bearer <token>``; the token is the content of a file that only its owner
can read, looked at with each request, so that it can be changed while the daemon runs.
"""

import contextlib
import hmac
import json
import logging
import re
import socket
import sys
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec

from pvc_core.hypervisor.api import Console, Hypervisor, HypervisorError, HypervisorUnavailable
from pvc_core.model.errors import NotFound, PvcError
from pvc_core.node.console_log import MAX_BYTES, LogPart, read_from, read_tail
from pvc_core.node.lease import NodeLease
from pvc_core.node.state import NodeState
from pvc_core.node.uploads import MAX_PART_BYTES, NoRoom, Uploads
from pvc_core.plugin.errors import CircuitOpen, DeadlineExceeded, NotReady
from pvc_core.plugin.specs.lifecycle import Query

log = logging.getLogger(__name__)

_VM: Final = re.compile(r"^[0-9A-Za-z][0-9A-Za-z-]{0,63}$")
_REQUEST_S: Final = 15.0
"""A client that takes longer to send its request, or to take the answer, is dropped."""
_CONNECTIONS: Final = 64
_MAX_ARGUMENTS: Final = 64 * 1024
_DEFAULT_LIMIT: Final = 64 * 1024
_PIECE_BYTES: Final = 1 << 20
_Arguments = TypeVar("_Arguments")


class ServiceError(PvcError):
    """The node's service cannot be started."""


class ServiceParts(NamedTuple):
    """What the service works with."""

    node: str
    hypervisor: Hypervisor
    lease: NodeLease
    state: NodeState
    console_directory: Path
    token_file: Path
    uploads: Uploads
    queries: Mapping[str, Query] = {}


def read_token(path: Path) -> str:
    """Return the token; raise ServiceError unless the file can be read, by its owner only, and holds one."""
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServiceError(f"service.token_file: cannot read {path}: {error}") from error
    if mode & 0o077:
        raise ServiceError(f"service.token_file: {path} is open to others (mode {mode & 0o777:04o}): chmod 0600 it")
    if not token:
        raise ServiceError(f"service.token_file: {path} is empty: put a long random word into it")
    return token


class _NewUpload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=1 << 60)]
    data_bytes: Annotated[int, msgspec.Meta(ge=0, le=1 << 60)]


class _Body:
    """What is left of a request's body."""

    def __init__(self, source: BufferedIOBase, length: int) -> None:
        self._source: Final = source
        self.left = length

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end, or when the client is gone."""
        data = self._source.read(min(size, self.left))
        self.left -= len(data)
        return data

    def drain(self) -> None:
        """Read the rest, and forget it."""
        while self.left and self.read(_PIECE_BYTES):
            pass


class NodeService:
    """The HTTP server; every request has a daemon thread of its own."""

    def __init__(self, parts: ServiceParts, address: str, port: int, *, poll_s: float = 0.5) -> None:
        """Bind.  Raises ServiceError when the token cannot be read or the address cannot be bound.

        ``poll_s``: how long ``stop`` may take.
        """
        read_token(parts.token_file)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            self._server = _Server(parts, family, (address, port))
        except OSError as error:
            raise ServiceError(f"cannot serve on {address} port {port}: {error.strerror}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(poll_s,), name="node-service", daemon=True
        )

    @property
    def port(self) -> int:
        """The port it is bound to."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End, open consoles included."""
        self._server.shutdown()
        self._server.close_consoles()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 32

    def __init__(self, parts: ServiceParts, family: socket.AddressFamily, address: tuple[str, int]) -> None:
        self.address_family = family
        self.parts = parts
        self._places = threading.BoundedSemaphore(_CONNECTIONS)
        self._lock = threading.Lock()
        self._consoles: set[Console] = set()
        super().__init__(address, _Request)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            log.warning("service-busy client=%s connections=%d", client_address[0], _CONNECTIONS)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  (the base class's signature)
        log.debug("service-request-failed client=%s error=%r", client_address[0], sys.exception())

    @contextlib.contextmanager
    def open_console(self, vm: str) -> Any:
        console = self.parts.hypervisor.console(vm)
        with self._lock:
            self._consoles.add(console)
        try:
            yield console
        finally:
            with self._lock:
                self._consoles.discard(console)
            console.close()

    def close_consoles(self) -> None:
        with self._lock:
            consoles = list(self._consoles)
        for console in consoles:
            console.close()


class _Request(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "pvcnoded"
    sys_version = ""
    timeout = _REQUEST_S

    def _route(self) -> None:
        self.close_connection = True
        target = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(target.query)
        if (self.command, target.path) == ("GET", "/v1/health"):
            self._health()
            return
        if not self._authorized():
            return
        match [self.command, *target.path.strip("/").split("/")]:
            case ["GET", "v1", "vm", vm, "console.log"] if _VM.match(vm):
                self._console_log(vm, query)
            case ["GET", "v1", "vm", vm, "console"] if _VM.match(vm):
                self._console(vm)
            case ["POST", "v1", "query", name]:
                self._query(name)
            case ["POST", "v1", "upload"]:
                self._try(self._begin_upload)
            case ["PUT", "v1", "upload", id_]:
                self._try(lambda: self._write_part(id_, query))
            case ["DELETE", "v1", "upload", id_]:
                self._try(lambda: self.server.parts.uploads.remove(id_))
            case _:
                self._error(HTTPStatus.NOT_FOUND, f"there is nothing at {target.path}")

    do_GET = do_POST = do_PUT = do_DELETE = _route  # noqa: N815 - names of the base class

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("service-request client=%s said=%r", self.client_address[0], format % args)

    # --- answers ------------------------------------------------------------------------------------

    def _answer(self, status: HTTPStatus, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: HTTPStatus, message: str, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps({"error": message}).encode(), "application/json", headers)

    def _authorized(self) -> bool:
        try:
            wanted = read_token(self.server.parts.token_file)
        except ServiceError as error:
            log.error("service-closed error=%s", error)
            self._error(HTTPStatus.SERVICE_UNAVAILABLE, "the token of this node's service cannot be read; see its log")
            return False
        given = self.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, f"Bearer {wanted}".encode()):
            return True
        log.warning("service-refused client=%s path=%s", self.client_address[0], self.path)
        self._error(
            HTTPStatus.UNAUTHORIZED, "the token is missing or is not this node's", {"WWW-Authenticate": "Bearer"}
        )
        return False

    def _health(self) -> None:
        parts = self.server.parts
        lease = parts.lease.generation() is not None
        body = json.dumps({"node": parts.node, "daemon": parts.state.daemon, "lease": lease}).encode()
        self._answer(HTTPStatus.OK if lease else HTTPStatus.SERVICE_UNAVAILABLE, body, "application/json")

    def _console_log(self, vm: str, query: dict[str, list[str]]) -> None:
        path = self.server.parts.console_directory / f"{vm}.log"
        try:
            part = _read(path, query)
        except ValueError as error:
            self._error(HTTPStatus.BAD_REQUEST, str(error))
        except FileNotFoundError:
            self._error(HTTPStatus.NOT_FOUND, f"there is no console log of VM {vm} on node {self.server.parts.node}")
        except OSError as error:
            self._error(HTTPStatus.INTERNAL_SERVER_ERROR, f"cannot read {path}: {error.strerror}")
        else:
            kind = "application/octet-stream"
            self._answer(HTTPStatus.OK, part.data, kind, {"X-Next-Offset": str(part.next_offset)})

    def _query(self, name: str) -> None:
        query = self.server.parts.queries.get(name)
        if query is None:
            known = ", ".join(sorted(self.server.parts.queries)) or "none"
            self._error(HTTPStatus.NOT_FOUND, f"no plugin of this node answers {name!r}; known: {known}")
            return
        self._try(lambda: query(self._arguments(dict[str, Any])))

    def _try(self, act: Callable[[], Any]) -> None:
        """Answer with what comes of it, as JSON."""
        try:
            body = msgspec.json.encode(act())
        except ValueError as error:
            self._error(HTTPStatus.BAD_REQUEST, str(error))
        except NotFound as error:
            self._error(HTTPStatus.NOT_FOUND, str(error))
        except NoRoom as error:
            self._error(HTTPStatus.INSUFFICIENT_STORAGE, str(error))
        except (NotReady, DeadlineExceeded, CircuitOpen) as error:
            self._error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except PvcError as error:
            self._error(HTTPStatus.CONFLICT, str(error))
        else:
            self._answer(HTTPStatus.OK, body, "application/json")

    def _begin_upload(self) -> dict[str, str]:
        wanted = self._arguments(_NewUpload)
        return {"path": str(self.server.parts.uploads.begin(wanted.name, wanted.size_bytes, wanted.data_bytes))}

    def _write_part(self, id_: str, query: dict[str, list[str]]) -> None:
        body = _Body(self.rfile, self._length(MAX_PART_BYTES, "a part has"))
        try:
            offset = _number(query, "offset", 0)
            self.server.parts.uploads.write(id_, offset, body, body.left, self.headers.get("X-SHA256", ""))
        finally:
            # Else who sends it finds a broken connection in place of the answer.
            body.drain()

    def _length(self, most: int, what: str) -> int:
        length = self.headers.get("Content-Length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > 18 or int(length) > most:
            raise ValueError(f"{what} up to {most} bytes, and a Content-Length")
        return int(length)

    def _arguments(self, type_: type[_Arguments]) -> _Arguments:
        length = self._length(_MAX_ARGUMENTS, "arguments are an object that has")
        try:
            return msgspec.json.decode(self.rfile.read(length) or b"{}", type=type_)
        except msgspec.ValidationError as error:
            raise ValueError(f"the arguments do not fit: {error}") from error
        except msgspec.MsgspecError as error:
            raise ValueError(f"the arguments are no JSON object: {error}") from error

    # --- the console --------------------------------------------------------------------------------

    def _console(self, vm: str) -> None:
        if self.headers.get("Upgrade", "").lower() != "pvc-console":
            upgrade = {"Upgrade": "pvc-console"}
            self._error(HTTPStatus.UPGRADE_REQUIRED, "ask with 'Upgrade: pvc-console' to open a console", upgrade)
            return
        try:
            with self.server.open_console(vm) as console:
                self.send_response(HTTPStatus.SWITCHING_PROTOCOLS)
                self.send_header("Connection", "Upgrade")
                self.send_header("Upgrade", "pvc-console")
                self.end_headers()
                log.info("console-opened vm=%s client=%s", vm, self.client_address[0])
                self._bridge(console)
        except HypervisorUnavailable as error:
            self._error(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except HypervisorError as error:
            self._error(HTTPStatus.CONFLICT, str(error))
        else:
            log.info("console-closed vm=%s client=%s", vm, self.client_address[0])

    def _bridge(self, console: Console) -> None:
        """Carry bytes both ways until either side ends."""
        self.connection.settimeout(None)
        outward = threading.Thread(target=self._outward, args=(console,), name="console-out", daemon=True)
        outward.start()
        try:
            # read1 of the buffered file: the client's first bytes may have come along with its request.
            while data := self.rfile.read1(65536):
                console.write(data)
        except (OSError, HypervisorError) as error:
            log.debug("console-ended reason=%s", error)
        finally:
            console.close()
            outward.join(_REQUEST_S)

    def _outward(self, console: Console) -> None:
        try:
            while data := console.read():
                self.connection.sendall(data)
        except (OSError, HypervisorError) as error:
            log.debug("console-ended reason=%s", error)
        finally:
            # Wakes the thread that waits for the client.
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)


def _read(path: Path, query: dict[str, list[str]]) -> LogPart:
    if "tail" in query:
        return read_tail(path, _number(query, "tail", 0))
    return read_from(path, _number(query, "offset", 0), _number(query, "limit", _DEFAULT_LIMIT))


def _number(query: dict[str, list[str]], name: str, default: int) -> int:
    text = query.get(name, [str(default)])[-1]
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"{name}={text!r} is not a number; answers have up to {MAX_BYTES} bytes")
    return int(text)
