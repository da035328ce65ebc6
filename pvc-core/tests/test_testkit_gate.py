"""The relay that cuts clients off."""

import socket
from collections.abc import Iterator

import pytest

from pvc_core.testkit.gate import Gate


@pytest.fixture
def target() -> Iterator[socket.socket]:
    """A server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def _connect(gate: Gate) -> socket.socket:
    host, port = gate.address.split(":")
    return socket.create_connection((host, int(port)), 5)


def test_it_relays_both_ways_while_it_is_open(target: socket.socket) -> None:
    gate = Gate(target.getsockname())
    with _connect(gate) as client:
        server, _ = target.accept()
        with server:
            client.sendall(b"question")
            asked = server.recv(64)
            server.sendall(b"answer")
            answered = client.recv(64)
    gate.close()
    assert (asked, answered) == (b"question", b"answer")


def test_cut_drops_its_connections_and_healed_it_takes_new_ones(target: socket.socket) -> None:
    gate = Gate(target.getsockname())
    with _connect(gate) as client:
        target.accept()[0].close()
        gate.cut()
        assert client.recv(1) == b""
    gate.heal()
    with _connect(gate) as client:
        server, _ = target.accept()
        with server:
            client.sendall(b"again")
            assert server.recv(64) == b"again"
    gate.close()


class _SlowCloser(Gate):
    """A gate whose relay has ended before its close goes on, as when its last client leaves at that moment."""

    def close(self) -> None:
        """End the relay, as late as can be."""
        with _connect(self):
            self._ended = True
        self._thread.join(10)
        super().close()


def test_it_ends_cleanly_when_a_client_leaves_at_the_same_moment(target: socket.socket) -> None:
    gate = _SlowCloser(target.getsockname())
    gate.close()
    with pytest.raises(ConnectionRefusedError):
        _connect(gate)
