"""The service of a node, over HTTP: its guests' consoles and their logs, what its plugins answer, files sent to it."""

import contextlib
import hashlib
import http.client
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from pvc_core.model.errors import InvalidRequest, NotFound, PvcError, Unavailable

_TIMEOUT_S: Final = 5.0
_QUERY_S: Final = 25.0
"""For what plugins answer, who have 20 s for it."""
_MAX_HEAD: Final = 64 * 1024


class ServiceRefused(PvcError):
    """The node's service did not do what it was asked; the message has its words."""


class LogPart(NamedTuple):
    """Some bytes of a console's log, and where the next ones are."""

    data: bytes
    next_offset: int


class ServiceClient:
    """Talks to one node's service.  Every call opens a connection of its own; none is kept.

    A call that gets no answer for 5 s raises Unavailable naming node and address.
    """

    def __init__(self, node: str, address: str, port: int, token_file: str) -> None:
        if not token_file:
            raise InvalidRequest(
                "this goes through the nodes' service, which is off here: set service.token_file in the configuration"
            )
        self.node = node
        self._address = address
        self._port = port
        self._token_file = token_file

    def query(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Return what a plugin of the node answers.  Raises NotFound (no such query), ServiceRefused, Unavailable."""
        return self._json("POST", f"/v1/query/{name}", msgspec.json.encode(arguments))

    def upload_begin(self, name: str, size_bytes: int, data_bytes: int) -> str:
        """Have a file of this size made, ``data_bytes`` of which are no holes; return its path on the node.

        The part after the last slash names it in the other calls.  Raises ServiceRefused (no room), Unavailable.
        """
        wanted = {"name": name, "size_bytes": size_bytes, "data_bytes": data_bytes}
        return str(self._json("POST", "/v1/upload", msgspec.json.encode(wanted))["path"])

    def upload_part(self, id_: str, offset: int, data: bytes) -> None:
        """Send a part of at most 16 MiB; again after a failure is fine.  Raises NotFound, ServiceRefused, Unavailable."""
        checksum = {"X-SHA256": hashlib.sha256(data).hexdigest()}
        self._json("PUT", f"/v1/upload/{id_}?offset={offset}", data, checksum)

    def upload_end(self, id_: str) -> None:
        """Have a file removed that will not be used.  Raises Unavailable."""
        self._json("DELETE", f"/v1/upload/{id_}", b"")

    def _json(self, method: str, target: str, body: bytes, headers: Mapping[str, str] | None = None) -> Any:
        return msgspec.json.decode(self._ask(method, target, _QUERY_S, body, headers)[0])

    def _ask(
        self,
        method: str,
        target: str,
        timeout_s: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """Return body and headers of the answer."""
        connection = http.client.HTTPConnection(self._address, self._port, timeout=timeout_s)
        with contextlib.closing(connection), self._reaching():
            connection.request(method, target, body=body, headers={**self._headers(), **(headers or {})})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != http.client.OK:
                raise self._refusal(answer.status, said)
            return said, answer.headers

    def console_log(self, vm: str, *, offset: int = 0, limit: int = 1 << 20) -> LogPart:
        """Return up to ``limit`` bytes of the log from ``offset`` on; no bytes at its end."""
        return self._log(f"/v1/vm/{vm}/console.log?offset={offset}&limit={limit}")

    def console_tail(self, vm: str, lines: int) -> LogPart:
        """Return the last lines of the log, and the offset after them."""
        return self._log(f"/v1/vm/{vm}/console.log?tail={lines}")

    def _log(self, target: str) -> LogPart:
        body, headers = self._ask("GET", target, _TIMEOUT_S)
        return LogPart(body, int(headers.get("X-Next-Offset", len(body))))

    def console(self, vm: str) -> tuple[socket.socket, bytes]:
        """Open the serial console; return the socket to the guest and what it said already.

        The socket carries raw bytes both ways, without time-out; the node closes it when the guest ends.
        """
        with self._reaching():
            connection = socket.create_connection((self._address, self._port), timeout=_TIMEOUT_S)
        try:
            with self._reaching():
                head = "".join(f"{key}: {value}\r\n" for key, value in self._headers().items())
                connection.sendall(
                    f"GET /v1/vm/{vm}/console HTTP/1.1\r\nHost: {self._address}\r\n{head}"
                    "Connection: Upgrade\r\nUpgrade: pvc-console\r\n\r\n".encode()
                )
                status, length, rest = self._read_head(connection)
                if status != http.client.SWITCHING_PROTOCOLS:
                    while len(rest) < length and (more := connection.recv(4096)):
                        rest += more
                    raise self._refusal(status, rest)
            connection.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return connection, rest

    def _read_head(self, connection: socket.socket) -> tuple[int, int, bytes]:
        """Return the status, the length of the body, and what came after the head."""
        received = b""
        while b"\r\n\r\n" not in received:
            more = connection.recv(4096)
            if not more or len(received) > _MAX_HEAD:
                raise Unavailable(f"the service of node {self.node} ended the connection without an answer")
            received += more
        head, _, rest = received.partition(b"\r\n\r\n")
        words = head.split(None, 2)
        if len(words) < 2 or not words[1].isdigit():
            raise Unavailable(f"the service of node {self.node} does not speak HTTP: {head[:40]!r}")
        length = re.search(rb"^content-length:\s*(\d+)", head, re.IGNORECASE | re.MULTILINE)
        return int(words[1]), min(int(length[1]), _MAX_HEAD) if length else 0, rest

    def _headers(self) -> dict[str, str]:
        try:
            token = Path(self._token_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InvalidRequest(
                f"cannot read the token of the nodes' service, {self._token_file}: {error.strerror}"
            ) from error
        return {"Authorization": f"Bearer {token}"}

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unavailable(
                f"the service of node {self.node} ({self._address}:{self._port}) does not answer: {reason}"
            ) from error

    def _refusal(self, status: int, body: bytes) -> PvcError:
        if status == http.client.UNAUTHORIZED:
            return ServiceRefused(f"node {self.node} does not accept the token in {self._token_file}")
        said = _message(body) or f"HTTP status {status}"
        if status == http.client.NOT_FOUND:
            return NotFound(f"node {self.node}: {said}")
        return ServiceRefused(f"node {self.node} refused: {said}")


def _message(body: bytes) -> str:
    """Return the words of an error answer: member ``error`` of a JSON object, else the text."""
    try:
        decoded = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode("utf-8", "replace").strip()
    return str(decoded.get("error", "")) if isinstance(decoded, dict) else ""
