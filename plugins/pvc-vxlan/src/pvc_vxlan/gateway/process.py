"""The dnsmasq of a network: started in the gateway's namespace, found again by a new daemon, ended.

It is a daemon of its own and outlives ours.  A process is ours when the pid file names it and its command line has a
configuration of the network's directory; it is held by a pidfd before it is looked at, so no other process that gets its number
later can be meant.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pvc_core.plugin import DriverError, Run
from pvc_netdev.namespace import entered
from pvc_vxlan.gateway.directory import Directory, read, write
from pvc_vxlan.gateway.leases import DIRECTORY_VARIABLE

_START_S: Final = 10.0
_END_S: Final = 3.0
"""After SIGTERM, which has it hand all changes of leases to its script first."""
_PROC: Final = Path("/proc")
_CONFIG_OPTION: Final = b"--conf-file="


def config_of(directory: Directory) -> Path | None:
    """Return the configuration that the network's dnsmasq runs with; None: it does not run."""
    return _config_of(_pid(directory), directory)


def start(directory: Directory, namespace: str, text: str, run: Run) -> None:
    """Start it with this configuration; raises DriverError with what dnsmasq says.  The leases must have been written."""
    config = directory.config(text)
    write(config, text)
    argv = ["env", f"{DIRECTORY_VARIABLE}={directory.path}", "dnsmasq", f"{_CONFIG_OPTION.decode()}{config}"]
    with entered(namespace):
        done = run(argv, deadline_s=_START_S)
        if done.returncode and _strays(directory):
            # The pid file of one that still runs was lost, or a daemon died before it could be written.
            stop(directory)
            done = run(argv, deadline_s=_START_S)
    done.check()
    for other in directory.configs():
        if other != config:
            other.unlink(missing_ok=True)


def reload(directory: Directory) -> None:
    """Have it read hosts and names again."""
    pid = _pid(directory)
    with _held(pid) as descriptor:
        if descriptor is not None and _config_of(pid, directory):
            _signal(descriptor, signal.SIGHUP)


def stop(directory: Directory) -> None:
    """End it, and the process that runs its script, within some seconds; does not run is success.

    Afterwards the spool has all changes of leases.
    """
    pid = _pid(directory)
    _end([pid, *_children(pid)] if _config_of(pid, directory) else _strays(directory), directory.path)
    directory.pid.unlink(missing_ok=True)


def stop_all(below: Path) -> None:
    """End those of all networks whose directories are below one, at the same time."""
    _end([pid for pid in _pids() if (config := _config(pid)) and config.parent.parent == below], below)


def _end(pids: list[int], where: Path) -> None:
    with contextlib.ExitStack() as stack:
        held = [(pid, descriptor) for pid in pids if (descriptor := stack.enter_context(_held(pid))) is not None]
        # Looked at once more now that they are held.
        ours = {pid: descriptor for pid, descriptor in held if (config := _config(pid)) and where in config.parents}
        for pid, descriptor in ours.items():
            # A dnsmasq's child runs its script, and ends when all is handed on.
            if _parent(pid) not in ours:
                _signal(descriptor, signal.SIGTERM)
        if not _ended(list(ours.values()), _END_S):
            for descriptor in ours.values():
                _signal(descriptor, signal.SIGKILL)
            if not _ended(list(ours.values()), _END_S):
                raise DriverError(f"dnsmasq of {where} does not end, not even killed: processes {sorted(ours)}")


def _pid(directory: Directory) -> int:
    text = read(directory.pid).strip()
    return int(text) if text.isdecimal() else 0


def _config_of(pid: int, directory: Directory) -> Path | None:
    """Return which of the directory's configurations a process has."""
    config = _config(pid)
    return config if config and config.parent == directory.path else None


def _config(pid: int) -> Path | None:
    """Return the configuration that a process was told to use; None: not told, or it ended (a zombie says nothing)."""
    if not pid:
        return None
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    for word in words:
        if word.startswith(_CONFIG_OPTION):
            return Path(os.fsdecode(word.removeprefix(_CONFIG_OPTION)))
    return None


def _parent(pid: int) -> int:
    try:
        # After the name, which may have anything in it: state, parent (proc(5)).
        return int((_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]
    except OSError:
        return []


def _strays(directory: Directory) -> list[int]:
    """Return all processes with a configuration of the directory, by looking at all there are."""
    return [pid for pid in _pids() if _config_of(pid, directory)]


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """Hold a process, so that its number stays its own; None: there is none."""
    try:
        descriptor = os.pidfd_open(pid) if pid else None
    except ProcessLookupError:
        descriptor = None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _signal(descriptor: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)


def _ended(descriptors: list[int], limit_s: float) -> bool:
    """Wait for the end of processes; one that nobody has reaped yet has ended too."""
    end = time.monotonic() + limit_s
    left = set(descriptors)
    poll = select.poll()
    for descriptor in left:
        poll.register(descriptor, select.POLLIN)
    while left:
        remaining = end - time.monotonic()
        if remaining <= 0:
            return False
        for descriptor, _ in poll.poll(remaining * 1000):
            poll.unregister(descriptor)
            left.discard(descriptor)
    return True
