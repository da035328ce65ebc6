"""A node's BMC: a real one (OpenIPMI's ``ipmi_sim``), whose power button is a command of ours.

It speaks IPMI 1.5 and 2.0 over LAN (RMCP, RMCP+ with cipher suite 3), and answers at once: a power change is carried
out behind the answer, as a mainboard does it.  Where it listens is the network namespace of whoever starts it::

    with pvc_core.testkit.lan.entered(layout.switch):
        Bmc("hv1", directory, "10.77.0.101", 623, ("/path/to/power", "hv1")).start()

All methods work from whatever state an earlier process, killed at any moment, left behind.
"""

import contextlib
import hashlib
import os
import re
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import Lock, write_atomically
from pvc_sandbox.launch import launch
from pvc_sandbox.records import ProcessRecord, is_alive, is_stopped, kill, living, send
from pvc_sandbox.waiting import wait_until

PORT: Final = 623
"""Of IPMI over LAN."""
_PROGRAM: Final = "ipmi_sim"
_START_DEADLINE_S: Final = 10.0
_COMMANDS: Final = """\
mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
mc_enable 0x20
"""
_PLAIN: Final = re.compile(r"[\w./+,:@%=-]+")
"""What ipmi_sim's configuration can hold without being misread."""

# ipmi_sim runs it as: chassis MC get|set PARAMETER [VALUE] ..., and waits for its end and for the end of its output.
# Descriptors 3 to 8 are ipmi_sim's own, its sockets too: nothing that a power command starts may keep them.
_CHASSIS: Final = """\
#!/bin/sh
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&-
d={directory}
power() {{ {power} "$1" 9>&-; }}
change() {{
  flock 9
  wanted=$(cat "$d/wanted")
  [ "$(power status)" = "$wanted" ] && return
  [ -e "$d/slow" ] && sleep "$(cat "$d/slow")" 9>&-
  power "$wanted"
}}
shift; operation=$1; shift
while [ $# -gt 0 ]; do
  if [ "$operation" = get ]; then
    case $1 in
      power)
        case $(power status) in
          on) echo power:1 ;;
          off) echo power:0 ;;
          *) exit 1 ;;
        esac
        ;;
      boot) echo boot:default ;;
      *) exit 1 ;;
    esac
    shift
  else
    echo "$1=$2" >>"$d/received"
    case $1=$2 in
      power=1) wanted=on ;;
      power=0 | shutdown=*) wanted=off ;;
      *) exit 1 ;;
    esac
    shift 2
    [ -e "$d/stuck" ] && continue
    echo $wanted >"$d/wanted.new" && mv "$d/wanted.new" "$d/wanted"
    change 9>"$d/change.lock" >>"$d/log" 2>&1 </dev/null &
  fi
done
exit 0
"""


class BmcUser(NamedTuple):
    """An account of a BMC."""

    name: str
    password: str
    """Up to 16 characters, none of them blank or a quotation mark."""
    privilege: str = "admin"
    """Highest privilege: callback, user, operator or admin.  ipmi_sim lets every account ask for more."""


DEFAULT_USERS: Final = (BmcUser("admin", "secret"),)


class Bmc:
    """A BMC that keeps its files in ``directory`` and answers on ``address`` (an IP address) and UDP ``port``.

    ``power_command`` is called with one more argument: ``status`` (prints ``on`` or ``off``; after anything else the
    BMC says that it cannot tell), ``on`` or ``off``, never two at a time for a change.  The last command wins when several come while one is carried out.  What ``on`` starts
    must be in a session of its own.

    Faults can be set and healed while it runs or not: ``set_stuck``, ``set_slow``, ``hang``, ``stop``.  May be used
    from several processes.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        address: str,
        port: int,
        power_command: Sequence[str],
        users: Sequence[BmcUser] = DEFAULT_USERS,
    ) -> None:
        for text in (name, str(directory), address, *(part for user in users for part in user)):
            if not _PLAIN.fullmatch(text):
                raise SandboxError(f"{text!r} cannot be in the configuration of BMC {name!r}: use letters and digits")
        self.name: Final = name
        self.address: Final = address
        self.port: Final = port
        self.users: Final = tuple(users)
        self.directory: Final = directory.absolute()
        self._power_command: Final = tuple(power_command)
        self._pid_file: Final = self.directory / "bmc.pid"
        self._log: Final = self.directory / "log"

    def start(self) -> None:
        """Let the BMC answer; returns when it listens.  One that runs goes on, one that hangs too.

        One that runs with other users, or another address, is replaced.
        """
        with Lock(self.directory / "lock"):
            process = living(self._pid_file)
            if self._write_files() and process is not None:
                kill(process)
                process = None
            if process is None:
                process = self._launch()
            send(process, signal.SIGCONT)
            wait_until(
                f"BMC {self.name}: listens on UDP port {self.port}",
                lambda: self._listens(process),
                deadline_s=_START_DEADLINE_S,
                detail=lambda: f"see {self._log}",
            )

    def stop(self) -> None:
        """Take the BMC's own power away; one that is off is success.  The node's power stays as it is.

        A change that it has promised and not carried out yet is lost.
        """
        with Lock(self.directory / "lock"):
            process = living(self._pid_file)
            if process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(os.getpgid(process.pid), signal.SIGKILL)
                kill(process)
            self._pid_file.unlink(missing_ok=True)

    @property
    def running(self) -> bool:
        """Whether it is there, hanging or not."""
        return living(self._pid_file) is not None

    def hang(self) -> None:
        """Let the BMC answer nothing, until ``start``."""
        process = living(self._pid_file)
        if process is None:
            raise SandboxError(f"BMC {self.name} is off: it cannot hang")
        send(process, signal.SIGSTOP)
        wait_until(f"BMC {self.name}: hangs", lambda: is_stopped(process), deadline_s=_START_DEADLINE_S)

    def set_stuck(self, *, stuck: bool) -> None:
        """Let the BMC say yes to every power command and do nothing."""
        self._flag("stuck", "" if stuck else None)

    def set_slow(self, seconds: float) -> None:
        """Let every power change be carried out so long after the BMC said yes to it; 0: at once."""
        self._flag("slow", f"{seconds:g}" if seconds > 0 else None)

    def faults(self) -> tuple[str, ...]:
        """Return what is wrong with it, in words; empty: it works."""
        process = living(self._pid_file)
        found = ["off"] if process is None else ["hangs"] if is_stopped(process) else []
        if (self.directory / "stuck").exists():
            found.append("stuck")
        if (slow := self.directory / "slow").exists():
            found.append(f"slow ({slow.read_text()} s)")
        return tuple(found)

    def heal(self) -> None:
        """Take all faults away; a BMC that is off is started."""
        self.set_stuck(stuck=False)
        self.set_slow(0)
        self.start()

    def received(self) -> list[str]:
        """Return all commands that reached it, such as ``power=0``, stuck or not."""
        path = self.directory / "received"
        return path.read_text().splitlines() if path.exists() else []

    def _flag(self, name: str, content: str | None) -> None:
        path = self.directory / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, content)

    def _write_files(self) -> bool:
        """Bring the configuration up to date; return whether it was another before."""
        (self.directory / "state").mkdir(parents=True, exist_ok=True)
        power = shlex.join(self._power_command)
        write_atomically(
            self.directory / "chassis", _CHASSIS.format(directory=shlex.quote(str(self.directory)), power=power), 0o755
        )
        write_atomically(self.directory / "commands", _COMMANDS)
        path = self.directory / "lan.conf"
        wanted = self._configuration()
        before = path.read_text() if path.exists() else wanted
        write_atomically(path, wanted, 0o600)
        return before != wanted

    def _configuration(self) -> str:
        users = "".join(
            f'user {number} true "{user.name}" "{user.password}" {user.privilege} 10 md5\n'
            for number, user in enumerate(self.users, 2)
        )
        privileges = ("callback", "user", "operator", "admin")
        return (
            f'name "{self.name}"\n'
            "set_working_mc 0x20\n"
            "startlan 1\n"
            f"  addr {self.address} {self.port}\n"
            "  priv_limit admin\n"
            + "".join(f"  allowed_auths_{privilege} md5\n" for privilege in privileges)
            # Without a GUID it refuses every RMCP+ session.
            + f"  guid {hashlib.sha256(self.name.encode()).hexdigest()[:32]}\n"
            + "endlan\n"
            f'chassis_control "{self.directory}/chassis 0x20"\n'
            f"{users}"
        )

    def _launch(self) -> ProcessRecord:
        argv = [_PROGRAM, "-n", "-p", "-c", str(self.directory / "lan.conf")]
        argv += ["-f", str(self.directory / "commands"), "-s", str(self.directory / "state")]
        process = launch(argv, record=self._pid_file, log=self._log)
        if process is None:
            raise SandboxError(f"BMC {self.name} ended at once; see {self._log}")
        return process

    def _listens(self, process: ProcessRecord) -> bool:
        if not is_alive(process):
            raise SandboxError(f"BMC {self.name} ended while it started; see {self._log}")
        try:
            own = {str(fd.readlink()) for fd in Path(f"/proc/{process.pid}/fd").iterdir()}
            tables = [Path(f"/proc/{process.pid}/net", table).read_text() for table in ("udp", "udp6")]
        except FileNotFoundError:  # it has just closed one, or ended
            return False
        rows = [line.split() for table in tables for line in table.splitlines()[1:]]
        return any(f"socket:[{row[9]}]" in own for row in rows)
