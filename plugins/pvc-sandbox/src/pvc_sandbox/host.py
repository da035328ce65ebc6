"""One simulated host: namespaces, cables, and a real libvirtd.

Usable alone, without a cluster: ``Host(directory, 1).start()``.  All its methods work from whatever state an
earlier process, killed at any moment, left behind.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pvc_core.plugin.process import Completed, run
from pvc_sandbox import libvirtd, links
from pvc_sandbox.boot import NO_EQUIPMENT, Boot, Equipment, Watchdog, boot_file, enabled, load_boot, write_boot
from pvc_sandbox.control import NoAnswer, Service, ServiceState, Signal, Start, Status, Stop, ask
from pvc_sandbox.disks import make_image
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import Lock, write_atomically
from pvc_sandbox.layout import (
    MAX_NODES,
    PLAN_FILE,
    RECORD_FILE,
    RUN_ROOT,
    Layout,
    claim_layout,
    forget_empty_directories,
)
from pvc_sandbox.node_init import InitSpec
from pvc_sandbox.records import ProcessRecord, is_alive, is_stopped, kill, living, send
from pvc_sandbox.router import Router
from pvc_sandbox.waiting import wait_until

START_DEADLINE_S: Final = 30.0
EXEC_DEADLINE_S: Final = 60.0
_SIGNAL_DEADLINE_S: Final = 5.0
WATCHDOG_SOCKET: Final = "watchdog.sock"
"""Below the host's /run."""


class PowerLost(SandboxError):
    """Somebody cut the power of a host while it was starting: its BMC, as a rule."""


class Host:
    """Host ``number`` (from 1) of the sandbox in a directory.

    Safe to use from several threads and processes: what changes the host holds its lock.
    """

    def __init__(self, sandbox: Path | Layout, number: int) -> None:
        if not 1 <= number <= MAX_NODES:
            raise SandboxError(f"host {number} cannot be: a sandbox has hosts 1 to {MAX_NODES}")
        self.layout = sandbox if isinstance(sandbox, Layout) else claim_layout(Path(sandbox))
        self.number = number
        self.name = self.layout.node_name(number)
        self.address = self.layout.cluster_address(number)
        self.uri = libvirtd.uri(self.layout, number)
        self.state = self.layout.node_state(number)
        self.run = self.layout.node_run(number)
        self._pid_file = self.layout.run / f"{self.name}.pid"
        self._watchdog_file = self.layout.watchdog_record(number)
        self._pulled_file = self.layout.run / f"{self.name}.pulled"
        self._boot_log = self.state / "log/init.log"

    def start(
        self,
        services: Sequence[Service] = (),
        *,
        watchdog: Watchdog | None = None,
        equipment: Equipment = NO_EQUIPMENT,
    ) -> None:
        """Power the host on, start ``services`` too, and return when its libvirtd answers.

        A host that is on stays as it is, and so does a service that runs; a frozen one goes on, and pulled
        cables are put back.  The services, and a watchdog if it is to have one, come up at each later boot too, and so do
        services that were enabled (module ``boot``).  New equipment is there from its next boot on.  Raises PowerLost.
        """
        services = (libvirtd.service(self.layout, self.number), *services)
        boot = Boot(services=services, watchdog=watchdog, equipment=equipment)
        with self._lock(make_directory=True) as lock:
            write_boot(self.state, boot)
            self._pulled_file.unlink(missing_ok=True)
            power = self.power
            if power is not None and is_stopped(power):
                self._thaw(power)
            power = self._bring_up(boot, lock)

        def answers() -> bool:
            if self.power != power:
                raise PowerLost(f"{self.name} lost its power while it was starting")
            return run(["virsh", "-q", "-c", self.uri, "hostname"], deadline_s=START_DEADLINE_S).returncode == 0

        wait_until(
            f"{self.name}: answer from libvirtd",
            answers,
            deadline_s=START_DEADLINE_S,
            detail=lambda: (
                last_lines(self.state / "log/libvirtd.log") or last_lines(self.state / "libvirt/log/libvirtd.log")
            ),
        )

    def boot(self) -> None:
        """Power the host on as its power button does, and return when its daemons are starting.

        What is on stays as it is, frozen or not, and cables that were pulled stay pulled.  Raises SandboxError when
        it was never started before, or is removed meanwhile.
        """
        with self._lock() as lock:
            boot = load_boot(self.state)
            if not self.running:
                self._bring_up(boot, lock)

    @property
    def power(self) -> ProcessRecord | None:
        """The host's first process, None when it is off: another one after each boot."""
        return living(self._pid_file)

    @property
    def running(self) -> bool:
        """Whether the host is on."""
        return self.power is not None

    @property
    def frozen(self) -> bool:
        """Whether the host is on but hangs."""
        power = self.power
        return power is not None and is_stopped(power)

    @property
    def pid(self) -> int:
        """PID, on the machine, of the host's first process; raises SandboxError when it is off."""
        return self._powered().pid

    def power_cut(self, *, of: ProcessRecord | None = None) -> bool:
        """Cut the power: everything on it ends at once, without a word to its peers; an off host is success.

        ``of``: only if the host is still on since the boot with this first process.  Returns whether it was on.
        """
        if not self.layout.run.is_dir():  # since the machine was started, nothing of the sandbox was
            return False
        with self._lock():
            power = self.power
            if of is not None and power != of:
                return False
            self._cut()
        return power is not None

    def freeze(self) -> None:
        """Make the host hang: all its processes stop, guests too; its connections stay open but silent."""
        with self._lock():
            power = self._powered()
            send(power, signal.SIGSTOP)  # first, or it would start daemons again
            self._signal_all(power, signal.SIGSTOP)
            wait_until(f"{self.name}: hangs", lambda: is_stopped(power), deadline_s=_SIGNAL_DEADLINE_S)

    def thaw(self) -> None:
        """Let a frozen host go on; one that does not hang, or is off, is success."""
        with self._lock():
            power = self.power
            if power is not None:
                self._thaw(power)

    def cut_link(self, networks: Collection[int] = links.IN_USE) -> None:
        """Pull its cables to these networks: the host and its guests live on, unreachable there, also after a boot."""
        with self._lock():
            self._powered()
            write_atomically(self._pulled_file, msgspec.json.encode(sorted({*self._pulled(), *networks})))
            links.set_carriers(self.layout, self.number, pulled=self._pulled())

    def heal_link(self) -> None:
        """Put its network cables back."""
        with self._lock():
            self._pulled_file.unlink(missing_ok=True)
            links.set_carriers(self.layout, self.number, pulled=())

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the argument list that runs ``argv`` on the host, for whoever wants to start it himself."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--", *argv]

    def exec(self, argv: Sequence[str], *, deadline_s: float = EXEC_DEADLINE_S, stdin: bytes = b"") -> Completed:
        """Run a program on the host to its end and return what it said; a non-zero status is not an error."""
        return run(self.command(argv), deadline_s=deadline_s, stdin=stdin)

    def start_service(self, service: Service) -> None:
        """Keep a daemon running on the host; one that runs goes on."""
        ask(self.run, Start(service=service))

    def stop_service(self, name: str, *, deadline_s: float = 30.0) -> None:
        """End a daemon of the host (SIGTERM, later SIGKILL) and return when it is gone."""
        ask(self.run, Stop(name=name))
        wait_until(f"{self.name}: end of {name}", lambda: not self.services()[name].pid, deadline_s=deadline_s)

    def signal_service(self, name: str, sign: signal.Signals) -> None:
        """Send a signal to a daemon's process group; one that ends of it is started again."""
        ask(self.run, Signal(name=name, number=int(sign)))

    def services(self) -> dict[str, ServiceState]:
        """Return the host's daemons by name; raises NoAnswer when the host is off or frozen."""
        return ask(self.run, Status())

    def destroy(self) -> None:
        """Power off and delete its disks; the last host of a sandbox without a cluster takes the switch with it."""
        with self._lock(make_directory=True):
            self._cut()
            boot_file(self.state).unlink(missing_ok=True)  # no button that was pressed just now can boot it any more
            self._pulled_file.unlink(missing_ok=True)
        shutil.rmtree(self.state, ignore_errors=True)
        state = Path(self.layout.state)
        if (state / PLAN_FILE).exists():
            return
        with Lock(RUN_ROOT / "lock"):
            if not any(path.is_dir() for root in (state, self.layout.run) for path in root.glob("hv*")):
                Router(self.layout).stop()
                links.remove_switch(self.layout)
                (state / RECORD_FILE).unlink(missing_ok=True)
                shutil.rmtree(self.layout.run, ignore_errors=True)
        forget_empty_directories()

    def _lock(self, *, make_directory: bool = False) -> Lock:
        return Lock(self.layout.run / f"{self.name}.lock", make_directory=make_directory)

    def _powered(self) -> ProcessRecord:
        power = self.power
        if power is None:
            raise SandboxError(f"{self.name} is off; switch it on with: pvc sandbox power-on {self.name}")
        return power

    def _pulled(self) -> frozenset[int]:
        try:
            return msgspec.json.decode(self._pulled_file.read_bytes(), type=frozenset[int])
        except FileNotFoundError:
            return frozenset()

    def _bring_up(self, boot: Boot, lock: Lock) -> ProcessRecord:
        power = self.power
        if power is None:
            self._clear()
            power = self._boot(boot.equipment, lock)
        self._wait_for_init(power)
        links.connect(self.layout, self.number, power.pid, pulled=self._pulled(), router=boot.equipment.router)
        if boot.watchdog is None:
            self._end_watchdog()
        elif self._other_watchdog() is None:
            self._launch("watchdog", self.layout.state, self.name, str(lock.fileno()), lock=lock)
        for service in (*boot.services, *enabled(self.state)):
            self.start_service(service)
        return power

    def _boot(self, equipment: Equipment, lock: Lock) -> ProcessRecord:
        links.make_switch(self.layout)
        (self.run / "lock").mkdir(parents=True)  # libvirt locks consoles there
        self._boot_log.parent.mkdir(parents=True, exist_ok=True)
        disks = [self.state / f"disks/{number}.img" for number in range(1, 1 + len(equipment.disks))]
        for disk, size in zip(disks, equipment.disks, strict=True):
            make_image(disk, size)
        spec = InitSpec(
            name=self.name,
            run=str(self.run),
            pid_file=str(self._pid_file),
            binds=(*libvirtd.configure(self.layout, self.number), *equipment.binds),
            disks=tuple(map(str, disks)),
        )
        spec_file = self.state / "init.json"
        write_atomically(spec_file, msgspec.json.encode(spec))
        self._launch("node_init", str(spec_file), str(lock.fileno()), lock=lock)
        power = self.power
        if power is None:
            raise SandboxError(f"{self.name} ended at once: {last_lines(self._boot_log)}")
        return power

    def _launch(self, module: str, *arguments: str, lock: Lock) -> None:
        """Start a process that outlives this one; return when it is recorded."""
        with self._boot_log.open("ab") as log:
            # The lock is inherited until the process is recorded: should we be killed meanwhile, whoever takes the
            # lock next waits for that, and finds it.
            launcher = subprocess.Popen(
                [sys.executable, "-m", f"pvc_sandbox.{module}", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
        if launcher.wait(START_DEADLINE_S):
            raise SandboxError(f"{self.name} did not start ({module}): {last_lines(self._boot_log)}")

    def _wait_for_init(self, power: ProcessRecord) -> None:
        def ready() -> bool:
            if not is_alive(power):
                raise SandboxError(f"{self.name} ended while it was starting: {last_lines(self._boot_log)}")
            with contextlib.suppress(NoAnswer):
                self.services()
                return True
            return False

        wait_until(f"{self.name}: start of its first process", ready, deadline_s=START_DEADLINE_S)

    def _cut(self) -> None:
        links.unplug(self.layout, self.number)
        power = self.power
        if power is not None:
            kill(power)
        self._clear()

    def _clear(self) -> None:
        """Remove what does not survive a power cut."""
        self._end_watchdog()
        self._pid_file.unlink(missing_ok=True)
        shutil.rmtree(self.run, ignore_errors=True)

    def _end_watchdog(self) -> None:
        """End it, also one that has cut the power and waits to switch it on again; but not from within itself."""
        watchdog = self._other_watchdog()
        if watchdog is not None:
            kill(watchdog)
        (self.run / WATCHDOG_SOCKET).unlink(missing_ok=True)

    def _other_watchdog(self) -> ProcessRecord | None:
        watchdog = living(self._watchdog_file)
        return None if watchdog is None or watchdog.pid == os.getpid() else watchdog

    def _thaw(self, power: ProcessRecord) -> None:
        self._signal_all(power, signal.SIGCONT)
        send(power, signal.SIGCONT)
        wait_until(f"{self.name}: goes on", lambda: not is_stopped(power), deadline_s=_SIGNAL_DEADLINE_S)

    def _signal_all(self, power: ProcessRecord, sign: signal.Signals) -> None:
        # -1 is everything in the PID namespace but its first process and the sender: no process can slip through.
        sender = f"import os; os.kill(-1, {int(sign)})"
        argv = ["nsenter", "--target", str(power.pid), "--pid", "--", sys.executable, "-I", "-S", "-c", sender]
        run(argv, deadline_s=EXEC_DEADLINE_S).check()


def last_lines(path: Path, lines: int = 3) -> str:
    """Return the end of a log on one line, for an error; empty when there is none."""
    try:
        return " / ".join(path.read_text(errors="replace").strip().splitlines()[-lines:])
    except FileNotFoundError:
        return ""
