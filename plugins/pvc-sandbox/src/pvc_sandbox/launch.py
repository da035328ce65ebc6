"""Starting a process that outlives this one, and of which always is known that it runs."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pvc_sandbox.records import ProcessRecord, living, write_record

# The process starts only when it is told that its record is written, and ends when we died before that.
_LAUNCHER: Final = """\
log=$1; shift
exec 3<&0
( read -r go <&3 && exec "$@" 3<&- ) </dev/null >>"$log" 2>&1 &
echo $!
"""


def launch(argv: Sequence[str], *, record: Path, log: Path) -> ProcessRecord | None:
    """Start a program in a session of its own, its output appended to ``log``, and keep its record in a file.

    Returns the record, None when the program ended at once.  A kill at any moment leaves no process without a record.
    """
    with subprocess.Popen(
        ["sh", "-c", _LAUNCHER, "sh", str(log), *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
    ) as launcher:
        if launcher.stdin is None or launcher.stdout is None:
            raise AssertionError("both are pipes")
        write_record(record, int(launcher.stdout.readline()))
        launcher.stdin.write(b"go\n")
    return living(record)
