"""What the first process of a node is asked, and what it answers: one JSON document each, over a UNIX socket."""

import signal
import socket
from pathlib import Path
from typing import Final

import msgspec

from pvc_sandbox.errors import SandboxError

SOCKET_NAME: Final = "control.sock"
_ANSWER_DEADLINE_S: Final = 5.0
MAX_MESSAGE: Final = 1 << 20
PROGRAMS: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of a service that says nothing else."""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon of a node, kept running as systemd would keep it."""

    name: str
    argv: tuple[str, ...]
    log: str
    """File its output is appended to."""
    env: dict[str, str] = {}
    """Added to the node's own environment."""
    restart_delay_s: float = 0.5
    """Pause before it is started again when it ended by itself."""
    stop_timeout_s: float = 10.0
    """SIGKILL follows this long after SIGTERM."""
    notifies: bool = False
    """It says by itself when it is ready (sd_notify(3)); otherwise it is ready when it runs."""
    watchdog_s: float = 0.0
    """Once ready it is killed, and started again, when it gives no sign of life for so long; 0: for ever."""
    final_exits: tuple[int, ...] = ()
    """Exit statuses after which it is not started again."""


class ServiceState(msgspec.Struct, frozen=True, kw_only=True):
    """A service as it is now."""

    name: str
    wanted: bool
    pid: int = 0
    """In the node's own PID namespace; 0: it does not run."""
    starts: int = 0
    ready: bool = False
    said: str = ""
    """What it last said of itself."""
    given_up: bool = False
    """It ended with one of ``final_exits``: it is not started again until it is asked for."""
    last_exit: str = ""
    """How it last ended, such as "exit status 1" or "SIGKILL"; empty: never."""


class Start(msgspec.Struct, frozen=True, tag="start"):
    """Run a service; one that runs goes on, and a changed definition holds from its next start."""

    service: Service


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End a service and do not start it again."""

    name: str


class Signal(msgspec.Struct, frozen=True, tag="signal"):
    """Send a signal to the whole process group of a running service; if that ends it, it is started again."""

    name: str
    number: int


class Status(msgspec.Struct, frozen=True, tag="status"):
    """Say how all services are; every request is answered with this."""


Request = Start | Stop | Signal | Status


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The node's answer: an error, or all its services."""

    error: str = ""
    services: tuple[ServiceState, ...] = ()


class NoAnswer(SandboxError):
    """Nobody listens: the node is off, or its first process is not ready yet."""


def ask(run: Path, request: Request, deadline_s: float = _ANSWER_DEADLINE_S) -> dict[str, ServiceState]:
    """Ask the first process of the node whose /run is ``run``; return its services by name.

    Raises NoAnswer when it cannot be reached, SandboxError when it refuses.
    """
    path = run / SOCKET_NAME
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(deadline_s)
            connection.connect(str(path))
            connection.sendall(msgspec.json.encode(request))
            connection.shutdown(socket.SHUT_WR)
            received = bytearray()
            while part := connection.recv(65536):
                received += part
        answer = msgspec.json.decode(bytes(received), type=Answer)
    except (OSError, msgspec.DecodeError) as error:
        raise NoAnswer(f"no answer on {path}: {error}; the node is off, frozen or just starting") from error
    if answer.error:
        raise SandboxError(answer.error)
    return {state.name: state for state in answer.services}


def describe_exit(status: int) -> str:
    """Return a wait status in words."""
    if status < 0:
        return signal.Signals(-status).name
    return f"exit status {status}"
