"""FRR's service on a node, in the foreground: ``python -m pvc_sandbox.frr_daemon``.

It does what systemd does with Debian's ``frr.service`` (Type=forking): Debian's own ``frrinit.sh`` starts watchfrr, which
starts the daemons, and starts each again that ends or hangs; the service lives as long as watchfrr.  At the end nothing of
FRR is left, however that end comes: where systemd goes by the cgroup, this goes by the programs, for a node's processes are
seen by nobody else.
"""

import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROGRAM: Final = "/usr/lib/frr/frrinit.sh"
LOCK: Final = Path("/run/frr-unit.lock")
"""Held while FRR is reloaded: watchfrr is replaced then."""
_PROGRAMS: Final = "/usr/lib/frr/"
_SCRIPT_OF_WATCHFRR: Final = "/usr/lib/frr/watchfrr.sh"
"""With which it starts daemons."""
_PID_FILE: Final = Path("/run/frr/watchfrr.pid")
_SCRATCH: Final = Path("/var/tmp/frr")  # noqa: S108 - the daemons' own choice
"""Where each daemon keeps a directory called by its PID; PIDs come again after a boot."""
_START_S: Final = 60.0
_STOP_S: Final = 12.0
_KILL_S: Final = 5.0


def main() -> int:
    """Run FRR until SIGTERM, status 0, or until watchfrr ends by itself, status 1."""
    signal.signal(signal.SIGTERM, _leave)
    _kill_rest()  # of a service that was killed itself
    for path in _SCRATCH.glob("*"):
        shutil.rmtree(path, ignore_errors=True)
    try:
        try:
            _run()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    finally:  # also when SIGTERM came an instant before it is ignored
        _stop()
    return 1


def _run() -> None:
    try:
        subprocess.run([PROGRAM, "start"], timeout=_START_S, check=True)  # returns when all daemons are up
        _say("READY=1\nSTATUS=works")
        while (watchfrr := _watchfrr()) is not None:
            _wait_for_end(watchfrr)
        sys.stderr.write("watchfrr has ended\n")
    except (subprocess.SubprocessError, OSError) as error:
        sys.stderr.write(f"FRR did not start: {error}\n")


def _leave(*_: object) -> None:
    raise SystemExit(0)


def _watchfrr() -> int | None:
    """Return watchfrr's process, which may be another one after a reload; None when it has ended."""
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            pid = int(_PID_FILE.read_text())
        except (FileNotFoundError, ValueError):
            return None
    return pid if pid in _processes() else None


def _wait_for_end(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        ended.poll()
    finally:
        os.close(handle)


def _stop() -> None:
    """End FRR in good order, and then in any case."""
    try:
        subprocess.run([PROGRAM, "stop"], timeout=_STOP_S, check=False)
    except (subprocess.SubprocessError, OSError) as error:
        sys.stderr.write(f"FRR is killed, for it did not stop: {error}\n")
    _kill_rest()


def _kill_rest() -> None:
    end = time.monotonic() + _KILL_S
    while left := list(_processes()):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > end:
            sys.stderr.write(f"these processes of FRR do not end: {left}\n")
            return
        time.sleep(0.01)


def _processes() -> Iterator[int]:
    """Yield the processes of FRR's daemons, and of the script that starts them; dead ones that nobody reaped are none."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            program = str((path / "exe").readlink())
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if program.startswith(_PROGRAMS) or _SCRIPT_OF_WATCHFRR.encode() in words:
            yield int(path.name)


def _say(text: str) -> None:
    """Tell whoever supervises this service (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


if __name__ == "__main__":
    sys.exit(main())
