"""Programs that write to disks, one at a time on a node; the stand-ins for what systemd does.

A program goes on when the daemon that started it is killed.  So each runs under a lock of the kernel (flock(1)): the next
one, of whichever daemon, waits for its end, and whoever looks at the disks first waits for the lock too.
"""

from pathlib import Path
from typing import Final

from pvc_core.plugin import Completed, Context, DriverError

_WRITE_S: Final = 300.0
_READ_S: Final = 60.0
_UNIT_S: Final = 120.0
_NOT_ACTIVE: Final = (3, 4)
"""systemctl(1): not running; no such unit."""


class Tools:
    """Runs them on this node.  May be used from any thread."""

    def __init__(self, context: Context) -> None:
        self.run: Final = context.run
        self._lock: Final = str(Path(context.node.run_directory) / "ceph-disks.lock")

    def read(self, *argv: str, deadline_s: float = _READ_S) -> Completed:
        """Run a program that changes nothing."""
        return self.run(argv, deadline_s=deadline_s)

    def write(self, *argv: str, stdin: bytes = b"", deadline_s: float = _WRITE_S) -> Completed:
        """Run a program that writes to disks, once no other does.  Raises DriverError unless it succeeds."""
        Path(self._lock).parent.mkdir(parents=True, exist_ok=True)
        done = self.run(["flock", self._lock, *argv], deadline_s=deadline_s, stdin=stdin)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-3:]
            raise DriverError(f"{argv[0]} ended with status {done.returncode}: {' / '.join(said)}")
        return done

    def settle(self) -> None:
        """Wait for the end of a program that an earlier daemon started."""
        self.write("true")

    def wipe(self, device: str) -> None:
        """Remove the signatures of a disk or volume, and what is at its beginning."""
        self.write("wipefs", "--all", device)
        self.write("dd", "if=/dev/zero", f"of={device}", "bs=1M", "count=10", "conv=fsync,notrunc")

    def unit(self, verb: str, name: str, *options: str) -> None:
        """Start, stop, enable or disable a unit.  Raises DriverError."""
        try:
            self.run(["systemctl", verb, *options, name], deadline_s=_UNIT_S).check()
        except DriverError as error:
            raise DriverError(f"systemctl could not {verb} {name}: {error}") from error

    def is_active(self, name: str) -> bool:
        """Return whether a unit runs.  Raises DriverError when that cannot be told."""
        done = self.run(["systemctl", "is-active", name], deadline_s=_READ_S)
        if done.returncode not in (0, *_NOT_ACTIVE):
            done.check()
        return done.returncode == 0
