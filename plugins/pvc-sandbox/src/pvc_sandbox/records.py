"""A record of a process that outlives the one that started it.

A bare PID is not enough: after a crash or a reboot it may be another's.  The start time and the boot id tell.
"""

import contextlib
import os
import signal
from pathlib import Path

import msgspec

from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import write_atomically
from pvc_sandbox.waiting import wait_until


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One process of this boot of this machine."""

    pid: int
    start: int
    """Clock ticks since boot (field 22 of /proc/PID/stat)."""
    boot: str


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _state_and_start(pid: int) -> tuple[str, int] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, in brackets, may hold anything; the fields begin after the last bracket.
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], int(fields[19])


def record(pid: int) -> ProcessRecord:
    """Return the record of a living process."""
    found = _state_and_start(pid)
    if found is None:
        raise SandboxError(f"process {pid} has just ended")
    return ProcessRecord(pid=pid, start=found[1], boot=_boot_id())


def write_record(path: Path, pid: int) -> None:
    """Record a living process in a file."""
    write_atomically(path, msgspec.json.encode(record(pid)))


def go_on_recorded(path: Path, lock: int) -> None:
    """Return in a child of this process once it is recorded in a file, and let go of an inherited lock there.

    This process itself ends.  A kill at any moment leaves nothing unknown behind: it forks while no file says so yet,
    but the child goes on only after its parent has recorded it; whoever waits for the lock waits for that.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        write_record(path, child)
        os.write(writer, b"!")
        os._exit(0)
    os.close(lock)
    os.close(writer)
    recorded = os.read(reader, 1)
    os.close(reader)
    if not recorded:
        os._exit(1)


def living(path: Path) -> ProcessRecord | None:
    """Return the process recorded in a file, None unless that very process lives.

    A zombie is dead: on a machine without a proper init, orphans may stay unreaped for long.
    """
    try:
        known = msgspec.json.decode(path.read_bytes(), type=ProcessRecord)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return known if is_alive(known) else None


def is_alive(known: ProcessRecord) -> bool:
    """Return whether the recorded process lives."""
    found = _state_and_start(known.pid)
    return found is not None and found[0] not in "ZX" and found[1] == known.start and known.boot == _boot_id()


def is_stopped(known: ProcessRecord) -> bool:
    """Return whether the recorded process is stopped by a signal."""
    found = _state_and_start(known.pid)
    return found is not None and found[0] == "T" and is_alive(known)


def send(known: ProcessRecord, sign: signal.Signals) -> None:
    """Send a signal to the recorded process and to no other; a dead one is success."""
    try:
        handle = os.pidfd_open(known.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(known):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, sign)
    finally:
        os.close(handle)


def kill(known: ProcessRecord, deadline_s: float = 10.0) -> None:
    """End the recorded process at once and return when it is gone; raises SandboxError if it does not go."""
    send(known, signal.SIGKILL)
    wait_until(
        f"end of process {known.pid} after SIGKILL",
        lambda: not is_alive(known),
        deadline_s=deadline_s,
        detail=lambda: f"see /proc/{known.pid}/stack",
    )
