"""The hypervisor of a node: QEMU/KVM guests through libvirt.

Threads: libvirt's events come on one daemon thread of the process, a ``Link`` thread keeps the connection up,
and each outgoing migration has a thread of its own.
"""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

from pvc_core.hypervisor import hostfacts
from pvc_core.hypervisor.admissions import Admissions
from pvc_core.hypervisor.api import (
    Console,
    Domain,
    DomainCallback,
    DomainPlan,
    DomainState,
    ExitReason,
    HostFacts,
    HypervisorError,
    HypervisorUnavailable,
    MigrationOptions,
    MigrationStats,
)
from pvc_core.hypervisor.console import ConsoleBuffer
from pvc_core.hypervisor.domaininfo import DomainInfo, device_key, find_device, read_domain
from pvc_core.hypervisor.domainxml import Origin, limit_parameters, render
from pvc_core.hypervisor.exits import Exits
from pvc_core.hypervisor.fragment import fragment
from pvc_core.hypervisor.kvmprobe import KvmProbe
from pvc_core.hypervisor.link import Link
from pvc_core.hypervisor.nicxml import bandwidth_parameters, is_link_up, with_link
from pvc_core.hypervisor.rootports import placed
from pvc_core.hypervisor.transfers import Transfers
from pvc_core.hypervisor.usage import UsageMeter
from pvc_core.model.disk import DiskLimits
from pvc_core.model.node import GuestUsage
from pvc_core.model.vm import NicLimits, VmSpec

if TYPE_CHECKING:
    from pvc_core.hypervisor.libvirt_calls import Connection, ConsoleStream, Handle, Observer

log = logging.getLogger(__name__)

_EVENT_PATIENCE_S: Final = 3.0
"""How much later than an answer the event of a domain's end may come."""
_GONE_S: Final = 30.0


class LibvirtHypervisor:
    """Implements ``Hypervisor``.

    ``accelerator``: kvm, tcg, or auto (kvm where a 64-bit guest really starts with it).  ``memory_mib`` replaces
    what the kernel says.  A connection is given up after five unanswered probes ``keepalive_s`` apart; calls
    raise HypervisorUnavailable while there is none, at the latest after ``patience_s``.
    """

    def __init__(
        self,
        uri: str = "qemu:///system",
        *,
        migration_uri: str = "qemu+tcp://{address}/system",
        accelerator: str = "auto",
        run_directory: str = "/run/pvc",
        memory_mib: int | None = None,
        keepalive_s: float = 2.0,
        patience_s: float = 10.0,
    ) -> None:
        """Begin to connect.  Raises HypervisorError when libvirt's Python binding is not installed."""
        try:
            from pvc_core.hypervisor import libvirt_calls
        except ModuleNotFoundError as error:
            raise HypervisorError(
                "libvirt's Python binding is not installed: install pvc-core[node] with pip (it is compiled, which needs "
                "libvirt-dev, pkg-config and gcc), or the Debian package python3-libvirt"
            ) from error
        self._calls = libvirt_calls
        self._uri = uri
        self._memory_mib = memory_mib
        self._keepalive_s = max(1, round(keepalive_s))
        self._boot_id = hostfacts.boot_id()
        self._callbacks: list[DomainCallback] = []
        self._infos: dict[str, DomainInfo] = {}
        self._changes: Counter[str] = Counter()
        """How often the devices of a domain were seen to change: what was read before is out of date."""
        self._missed: set[str] = set()
        self._first_seen: dict[str, tuple[int, float]] = {}
        self._exits = Exits()
        self._transfers = Transfers(migration_uri, self._connect, self._tell)
        self._usage = UsageMeter()
        self._admissions = Admissions(Path(run_directory))
        self._probe = KvmProbe(Path(run_directory), accelerator, self._exits)
        self._link = Link(
            f"libvirt at {uri}",
            self._open,
            self._calls.Connection.close,
            up=self._connected,
            patience_s=patience_s,
        )

    # -- the connection ---------------------------------------------------------------------------------------

    def _connect(self, observer: "Observer | None" = None) -> "Connection":
        return self._calls.Connection(self._uri, self._keepalive_s, observer)

    def _open(self) -> "Connection":
        observer = self._calls.Observer(
            self._exits.seen, self._exits.executed, self._ended, self._tell, self._replugged, self._disconnected
        )
        # What was seen before may not be the last that happened, and libvirt may count its runs anew.
        self._missed |= set(self._infos)
        self._exits.forget_all()
        self._infos.clear()
        self._first_seen.clear()
        connection = self._connect(observer)
        try:
            found = self._list(connection)
            for handle, info in found.values():
                self._transfers.adopt(handle)
                self._view(handle, info)  # notes whether it executes
        except BaseException:
            connection.close()
            raise
        return connection

    def _connected(self) -> None:
        """Have everything looked at: anything may have happened while nobody was connected."""
        missed, self._missed = self._missed, set()
        for vm in sorted(missed | set(self._infos)):
            self._tell(vm)

    def _disconnected(self, connection: "Connection", reason: str) -> None:
        self._link.lost(connection, reason)

    def _ended(self, vm: str, reason: ExitReason) -> None:
        self._exits.ended(vm, reason)
        self._transfers.gone(vm)
        self._first_seen.pop(vm, None)
        log.info("domain-ended vm=%s libvirt=%s", vm, reason.value)

    def _replugged(self, vm: str) -> None:
        self._changes[vm] += 1
        self._infos.pop(vm, None)

    def _tell(self, vm: str) -> None:
        for callback in tuple(self._callbacks):
            callback(vm)

    @contextlib.contextmanager
    def _call(self, what: str) -> Iterator["Connection"]:
        """Give the connection, and put what was wanted before libvirt's own words in an error."""
        connection = self._link.get()
        try:
            yield connection
        except self._calls.ConnectionLost as error:
            self._disconnected(connection, str(error))
            raise HypervisorUnavailable(f"cannot {what}: libvirt at {self._uri} is gone: {error}") from error
        except self._calls.LibvirtError as error:
            raise HypervisorError(f"cannot {what}: {error}") from error

    # -- looking ----------------------------------------------------------------------------------------------

    def facts(self) -> HostFacts:
        with self._call("ask for the host's facts") as connection:
            capabilities, version, cpus = connection.capabilities(), connection.version(), connection.cpus()
            self._list(connection)
            foreign = sorted(i.name for i in tuple(self._infos.values()) if not i.ours and not i.probe)
            problem = self._probe.problem(connection, capabilities, version)
        total, free = hostfacts.memory_mib()
        return HostFacts(
            cpus=cpus,
            memory_mib=self._memory_mib or total,
            free_mib=min(free, self._memory_mib or free),
            version=version,
            accelerators=("tcg",) if problem else ("kvm", "tcg"),
            machine_types=hostfacts.machine_types(capabilities),
            unusable={"kvm": problem} if problem else {},
            foreign=tuple(foreign),
        )

    def domains(self) -> dict[str, Domain]:
        with self._call("list domains") as connection:
            views = {vm: self._view(handle, info) for vm, (handle, info) in self._list(connection).items()}
            return {vm: view for vm, view in sorted(views.items()) if view is not None}

    def domain(self, vm: str) -> Domain | None:
        with self._call(f"look at the domain of VM {vm}") as connection:
            handle = connection.find(vm)
            info = self._info(handle) if handle is not None else None
            if handle is None:
                self._transfers.gone(vm)
            return self._view(handle, info) if handle is not None and info is not None and info.ours else None

    def _required(self, connection: "Connection", vm: str) -> tuple["Handle", DomainInfo]:
        handle = connection.find(vm)
        info = self._info(handle) if handle is not None else None
        if handle is None or info is None or not info.ours:
            raise HypervisorError(f"this host has no domain of VM {vm}")
        return handle, info

    def _list(self, connection: "Connection") -> dict[str, tuple["Handle", DomainInfo]]:
        """Return PVC's domains; note the others, and forget those that are gone."""
        known = set(self._infos)
        found, present = {}, set()
        for handle in connection.domains():
            info = self._info(handle)
            if info is not None:
                present.add(handle.vm)
                if info.ours:
                    found[handle.vm] = (handle, info)
        for vm in known - present:
            self._infos.pop(vm, None)
        self._transfers.keep_only(present)
        return found

    def _info(self, handle: "Handle") -> DomainInfo | None:
        """Return a domain's description, None when it ended at this moment."""
        vm, run = handle.vm, handle.run
        known = self._infos.get(vm)
        if known is not None and run in (known.run, -1):
            return known
        changes = self._changes[vm]
        try:
            info = read_domain(handle.xml(), run)
        except self._calls.DomainGone:
            return None
        if self._changes[vm] == changes:
            self._infos[vm] = info
        self._exits.seen(vm, run)
        return info

    def _view(self, handle: "Handle", info: DomainInfo) -> Domain | None:
        vm, phases = handle.vm, self._calls.Phase
        try:
            phase = handle.phase()
            if phase is phases.EXECUTING:
                self._exits.executed(vm)
            if phase in (phases.EXECUTING, phases.PAUSED):
                self._transfers.look(handle)
        except self._calls.DomainGone:
            return None
        states = {phases.EXECUTING: DomainState.RUNNING, phases.INCOMING: DomainState.INCOMING}
        return Domain(
            id=vm,
            name=info.name,
            state=states.get(phase, DomainState.PAUSED),
            memory_mib=info.memory_mib,
            vcpus=info.vcpus,
            job=self._transfers.view(vm),
            accelerator=info.accelerator,
            vnc=info.vnc,
            running_for_s=0.0 if phase is phases.INCOMING else self._age(vm, info),
            note=info.note,
            disks=info.disks,
            controllers=info.controllers,
            nics=info.nics,
        )

    def _age(self, vm: str, info: DomainInfo) -> float:
        """Return for how long it has been executing here: since its start, or since it was first seen."""
        now = time.monotonic()
        run, since = self._first_seen.get(vm, (0, 0.0))
        if run != info.run:
            since = now
            if info.boot_id == self._boot_id:
                since -= max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - info.started_s)
            self._first_seen[vm] = (info.run, since)
        return now - since

    def exit_reason(self, vm: str) -> ExitReason:
        self._link.get()
        return self._exits.reason(vm, _EVENT_PATIENCE_S)

    def usage(self) -> dict[str, GuestUsage]:
        with self._call("read the guests' figures") as connection:
            ours = self._list(connection)
            records = connection.statistics()
        return self._usage.read({vm: stats for vm, stats in records.items() if vm in ours}, time.monotonic())

    # -- starting and ending ----------------------------------------------------------------------------------

    def start(self, plan: DomainPlan) -> None:
        accelerator = self._choose(plan.vm)
        origin = Origin(boot_id=self._boot_id, since_boot_s=time.clock_gettime(time.CLOCK_BOOTTIME))
        xml = render(plan, accelerator, origin=origin)
        with self._call(f"start {plan.vm.name}") as connection:
            handle = connection.create(xml)
            self._exits.seen(handle.vm, handle.run)
            self._exits.executed(handle.vm)

    def _choose(self, vm: VmSpec) -> str:
        facts = self.facts()
        wanted = facts.accelerators[0] if vm.accelerator == "auto" else vm.accelerator
        if wanted not in facts.accelerators:
            raise HypervisorError(
                f"cannot start {vm.name}: it wants {wanted}, which this host cannot give: {facts.unusable[wanted]}"
            )
        return wanted

    def shutdown(self, vm: str) -> None:
        with self._call(f"shut down VM {vm}") as connection:
            self._required(connection, vm)[0].press_power_button()

    def destroy(self, vm: str) -> None:
        deadline = time.monotonic() + _GONE_S
        with self._call(f"stop VM {vm}") as connection:
            while (handle := connection.find(vm)) is not None:
                info = self._info(handle)
                if info is not None and not info.ours:
                    raise HypervisorError(
                        f"cannot stop VM {vm}: domain {info.name!r} has its UUID, but PVC did not start it; stop it "
                        "with virsh"
                    )
                if time.monotonic() > deadline:
                    raise HypervisorError(f"VM {vm} did not end within {_GONE_S:g} s after its power was cut")
                handle.destroy()
                time.sleep(0.01)

    # -- live migration ---------------------------------------------------------------------------------------

    def admit(self, vm: str, attempt: str, console_log: str) -> str:
        try:
            return self._admissions.admit(vm, attempt, console_log)
        except OSError as error:
            raise HypervisorError(f"cannot admit VM {vm}: {error}") from error

    def dismiss(self, vm: str) -> None:
        self._admissions.dismiss(vm)

    def migrate(self, vm: str, options: MigrationOptions) -> None:
        with self._call(f"migrate VM {vm}") as connection:
            handle, info = self._required(connection, vm)
            phase = handle.phase()
        if phase is not self._calls.Phase.EXECUTING:
            raise HypervisorError(f"cannot migrate {info.name}: it is {phase.value}, not running")
        self._transfers.begin(vm, options)

    def abort_migration(self, vm: str) -> None:
        def try_now() -> bool:
            with self._call(f"abort the migration of VM {vm}") as connection:
                handle = connection.find(vm)
                return handle is None or handle.abort_job()

        self._transfers.abort(vm, try_now)

    def forget_job(self, vm: str) -> None:
        self._transfers.forget(vm)

    def migration_stats(self, vm: str) -> MigrationStats:
        with self._call(f"read how VM {vm} was migrated") as connection:
            downtime, total = self._required(connection, vm)[0].arrival()
        return MigrationStats(downtime_ms=downtime, total_ms=total)

    # -- standing still ---------------------------------------------------------------------------------------

    def set_note(self, vm: str, note: str) -> None:
        with self._call(f"leave a note with VM {vm}") as connection:
            self._required(connection, vm)[0].set_note(note)
            self._replugged(vm)

    def pause(self, vm: str) -> None:
        with self._call(f"pause VM {vm}") as connection:
            self._required(connection, vm)[0].suspend()

    def resume(self, vm: str) -> None:
        with self._call(f"resume VM {vm}") as connection:
            self._required(connection, vm)[0].resume()

    def freeze(self, vm: str, deadline_s: float) -> int:
        with self._call(f"freeze the file systems of VM {vm}") as connection:
            return self._required(connection, vm)[0].freeze(deadline_s)

    def thaw(self, vm: str, deadline_s: float) -> None:
        with self._call(f"thaw the file systems of VM {vm}") as connection:
            self._required(connection, vm)[0].thaw(deadline_s)

    # -- devices and consoles ---------------------------------------------------------------------------------

    def attach_device(self, vm: str, xml: str) -> None:
        device = fragment(xml, "the device")
        with self._call(f"plug a device into VM {vm}") as connection:
            handle, _ = self._required(connection, vm)
            try:
                handle.attach(ET.tostring(placed(device, handle.xml()), encoding="unicode"))
            finally:
                self._replugged(vm)

    def detach_device(self, vm: str, xml: str) -> None:
        fragment(xml, "the device")
        key = device_key(xml)
        if key is None:
            raise HypervisorError("the device to unplug has neither a target, a MAC address nor an alias")
        with self._call(f"unplug {key[0]} {key[2]} from VM {vm}") as connection:
            handle, _ = self._required(connection, vm)
            device = find_device(handle.xml(), key)
            alias = device.find("alias") if device is not None else None
            try:
                if alias is not None:
                    handle.detach(alias.get("name", ""))
            finally:
                self._replugged(vm)

    def resize_disk(self, vm: str, target: str, size_bytes: int) -> None:
        with self._call(f"resize disk {target} of VM {vm}") as connection:
            self._with_disk(connection, vm, target).resize_disk(target, size_bytes)

    def limit_disk(self, vm: str, target: str, limits: DiskLimits) -> None:
        with self._call(f"limit disk {target} of VM {vm}") as connection:
            self._with_disk(connection, vm, target).limit_disk(target, limit_parameters(limits))

    def limit_nic(self, vm: str, mac: str, limits: NicLimits) -> None:
        with self._call(f"limit NIC {mac} of VM {vm}") as connection:
            self._with_nic(connection, vm, mac).limit_nic(mac, bandwidth_parameters(limits))

    def set_link(self, vm: str, mac: str, *, up: bool) -> None:
        with self._call(f"set the link of NIC {mac} of VM {vm}") as connection:
            handle = self._with_nic(connection, vm, mac)
            device = find_device(handle.xml(), ("interface", "mac@address", mac))
            if device is not None and is_link_up(device) != up:
                handle.update(with_link(device, up=up))

    def _with_nic(self, connection: "Connection", vm: str, mac: str) -> "Handle":
        handle, info = self._required(connection, vm)
        if mac not in info.nics:
            raise HypervisorError(f"{info.name} has no NIC {mac}: it has {', '.join(info.nics) or 'none'}")
        return handle

    def _with_disk(self, connection: "Connection", vm: str, target: str) -> "Handle":
        handle, info = self._required(connection, vm)
        targets = [disk.target for disk in info.disks]
        if target not in targets:
            raise HypervisorError(f"{info.name} has no disk {target}: it has {', '.join(targets) or 'none'}")
        return handle

    def console(self, vm: str) -> Console:
        buffer = ConsoleBuffer()
        with self._call(f"open the console of VM {vm}") as connection:
            handle, _ = self._required(connection, vm)
            return _LibvirtConsole(handle.console(buffer.put, buffer.end), buffer)

    def watch(self, callback: DomainCallback) -> None:
        self._callbacks.append(callback)

    def close(self) -> None:
        self._callbacks.clear()
        self._link.close()


class _LibvirtConsole:
    def __init__(self, stream: "ConsoleStream", buffer: ConsoleBuffer) -> None:
        self._stream = stream
        self._buffer = buffer

    def read(self) -> bytes:
        return self._buffer.get()

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    def close(self) -> None:
        self._stream.close()
