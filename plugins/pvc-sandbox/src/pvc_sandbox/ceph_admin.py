"""What is asked of Ceph's monitors, in a process of its own: ``python -m pvc_sandbox.ceph_admin``, a request on stdin.

A process, because librados has no end to some of its waits, and leaves threads behind; one connection, because each start
of ``ceph`` takes longer than all that is asked here.  It runs where the cluster's addresses are reachable.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from pvc_core.model.errors import PvcError
from pvc_core.plugin.process import run
from pvc_core.testkit.lan import entered
from pvc_sandbox import ceph_health
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.waiting import wait_until

_ANSWER_S: Final = 20.0
_LONGER_THAN_THAT_S: Final = 10.0
_WARNINGS_S: Final = 10.0
"""So long a warning may last that goes by itself; then it is somebody's own doing."""

T = TypeVar("T")


class NewOsd(msgspec.Struct, frozen=True, kw_only=True):
    """An OSD that the monitors are to know."""

    uuid: str
    key: str
    id: int | None = None
    """None: they choose."""


class Register(msgspec.Struct, frozen=True, tag="register"):
    """Let the monitors know OSDs, and set options of the cluster; may be repeated.  Answer: ``Ids``."""

    osds: tuple[NewOsd, ...]
    options: dict[str, str] = {}


class Wait(msgspec.Struct, frozen=True, tag="wait"):
    """Return when these OSDs are up and Ceph serves.  Answer: ``Settled``."""

    osds: tuple[int, ...]


Request = Register | Wait


class Ids(msgspec.Struct, frozen=True):
    """The ids of the registered OSDs, in their order."""

    ids: tuple[int, ...]


class Settled(msgspec.Struct, frozen=True):
    """Ceph as it is once it serves."""

    health: str
    osds: int
    """How many are up."""
    groups: int


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    conf: str
    deadline_s: float
    request: Request


def ask(conf: Path, switch: str, request: Request, answer: type[T], *, deadline_s: float) -> T:
    """Have a request done in another process, in the switch's network namespace; return the answer.

    ``conf`` is a ceph.conf that names the administrator's keyring.  Raises SandboxError.
    """
    call = _Call(conf=str(conf), deadline_s=deadline_s, request=request)
    with entered(switch):
        done = run(
            [sys.executable, "-m", __name__],
            deadline_s=deadline_s + _LONGER_THAN_THAT_S,
            stdin=msgspec.json.encode(call),
        )
    if done.returncode:
        raise SandboxError(f"Ceph: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return msgspec.json.decode(done.stdout, type=answer)


class _Monitors:
    """A connection to them."""

    def __init__(self, conf: str, deadline_s: float) -> None:
        import rados  # Debian's python3-rados; here, because nothing else of the sandbox needs it

        timeouts = {"client_mount_timeout": f"{deadline_s:.0f}", "rados_mon_op_timeout": f"{_ANSWER_S:.0f}"}
        try:
            self._rados: Any = rados.Rados(conffile=conf, name="client.admin", conf=timeouts)
            self._rados.connect()
        except rados.Error as error:
            raise SandboxError(f"its monitors do not answer: {error}") from error

    def command(self, prefix: str, body: bytes = b"", **arguments: Any) -> bytes:
        """Return the answer of a command; raises SandboxError when it is refused, or there is none."""
        return self._checked(prefix, self._rados.mon_command(_words(prefix, arguments), body))

    def manager_command(self, prefix: str, **arguments: Any) -> bytes:
        """The same, of the manager that works."""
        return self._checked(prefix, self._rados.mgr_command(_words(prefix, arguments), b""))

    def _checked(self, prefix: str, answered: tuple[int, bytes, str]) -> bytes:
        status, out, said = answered
        if status:
            raise SandboxError(f"{prefix}: {said or f'error {-status}'}")
        return out


def _words(prefix: str, arguments: dict[str, Any]) -> str:
    given = {name: value for name, value in arguments.items() if value is not None}
    return json.dumps({"prefix": prefix, "format": "json", **given})


def _register(monitors: _Monitors, request: Register) -> Ids:
    for name, value in request.options.items():
        monitors.command("config set", who="global", name=name, value=value)
    ids = []
    for osd in request.osds:
        secrets = msgspec.json.encode({"cephx_secret": osd.key})
        answer = monitors.command("osd new", secrets, uuid=osd.uuid, id=osd.id)
        ids.append(int(json.loads(answer)["osdid"]))
    return Ids(tuple(ids))


def _wait(monitors: _Monitors, request: Wait, deadline_s: float) -> Settled:
    tolerant_from = time.monotonic() + min(_WARNINGS_S, deadline_s / 2)
    why = ""

    def settled() -> Settled | None:
        nonlocal why
        status = msgspec.json.decode(monitors.command("status"), type=ceph_health.Status)
        known = msgspec.json.decode(monitors.command("osd dump"), type=ceph_health.OsdMap)
        why = ceph_health.complaint(status, known, request.osds)
        if why:
            return None
        answer = monitors.manager_command("pg dump", dumpcontents=["pgs"])
        groups = msgspec.json.decode(answer, type=ceph_health.Groups)
        unsettled = ceph_health.unsettled_groups(known, groups)
        health = ceph_health.described(status.health)
        why = f"placement groups: {', '.join(unsettled)}" if unsettled else health
        if unsettled or (status.health.status != "HEALTH_OK" and time.monotonic() < tolerant_from):
            return None
        return Settled(health, sum(osd.up for osd in known.osds), len(groups.pg_stats))

    return wait_until("it serves", settled, deadline_s=deadline_s, detail=lambda: why)


def main() -> None:
    """Do the request; exit status 1 and one line when that did not work."""
    call = msgspec.json.decode(sys.stdin.buffer.read(), type=_Call)
    answer: Ids | Settled
    try:
        monitors = _Monitors(call.conf, call.deadline_s)
        match call.request:
            case Register():
                answer = _register(monitors, call.request)
            case Wait():
                answer = _wait(monitors, call.request, call.deadline_s)
    except PvcError as error:
        sys.exit(str(error))
    sys.stdout.write(msgspec.json.encode(answer).decode())


if __name__ == "__main__":
    main()
