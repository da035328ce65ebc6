"""A TCP relay that can be closed: cuts one client off from a server without touching either."""

import contextlib
import selectors
import socket
import threading
from typing import Final

_CHUNK: Final = 65536


class Gate:
    """Listens on ``address`` (host:port of the loopback) and relays to ``target`` while it is open.

    Closed, it drops its connections and each new one at once, as a host does whose server has died.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._ended = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._wake, self._woken = socket.socketpair()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, name=f"gate {self.address}", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Close the gate."""
        self._open.clear()
        self._wake.send(b"\0")

    def heal(self) -> None:
        """Open the gate for new connections."""
        self._open.set()

    def close(self) -> None:
        """End the relay."""
        self._ended = True
        self._wake.send(b"\0")
        self._thread.join()
        for end in (self._wake, self._woken):
            end.close()

    def _run(self) -> None:
        with contextlib.ExitStack() as stack:
            self._selector = stack.enter_context(selectors.DefaultSelector())
            stack.enter_context(self._listener)
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._selector.register(self._woken, selectors.EVENT_READ)
            while not self._ended:
                for key, _ in self._selector.select():
                    link = key.fileobj
                    if link is self._listener:
                        self._accept()
                    elif link is self._woken:
                        self._woken.recv(_CHUNK)
                    elif isinstance(link, socket.socket) and link in self._pairs:
                        self._relay(link)
                if not self._open.is_set():
                    self._drop_all()
            self._drop_all()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if not self._open.is_set():
            client.close()
            return
        try:
            server = socket.create_connection(self._target, 1.0)
        except OSError:
            client.close()
            return
        for link, other in ((client, server), (server, client)):
            self._pairs[link] = other
            self._selector.register(link, selectors.EVENT_READ)

    def _relay(self, link: socket.socket) -> None:
        try:
            data = link.recv(_CHUNK)
            if data:
                self._pairs[link].sendall(data)
                return
        except OSError:
            data = b""
        self._drop(link)

    def _drop(self, link: socket.socket) -> None:
        for end in (link, self._pairs[link]):
            del self._pairs[end]
            self._selector.unregister(end)
            end.close()

    def _drop_all(self) -> None:
        while self._pairs:
            self._drop(next(iter(self._pairs)))
