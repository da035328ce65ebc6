"""Hypervisors of several hosts in one process, on one clock: for tests and the simulator.

``MemoryWorld`` is the hidden truth: which host has power, which guest executes where, what is on its
way.  ``MemoryHypervisor`` is one daemon's view of one host, and knows no more than libvirt would
tell it.  Deterministic: everything happens at the time it is due on the clock, in a fixed order, when
somebody makes a call or ``advance``s the world.  Nothing keeps a guest from being started on two
hosts: catching that is the business of those who use this.
"""

import contextlib
import threading
from collections.abc import Iterator
from functools import partial

from pvc_core.hypervisor.api import (
    DomainPlan,
    DomainState,
    ExitReason,
    HypervisorError,
    MigrationOptions,
    MigrationStats,
)
from pvc_core.hypervisor.memory_connection import MemoryHypervisor
from pvc_core.hypervisor.memory_guest import (
    Agenda,
    Body,
    Device,
    Event,
    Faults,
    Guest,
    Host,
    Migration,
    Monotonic,
    Pace,
    body_of,
)
from pvc_core.model.disk import DiskLimits
from pvc_core.model.vm import NicLimits

__all__ = ["Faults", "MemoryHypervisor", "MemoryWorld", "Pace"]


class MemoryWorld:
    """Hosts, links and guests.  All methods may be called from any thread; watchers run on the caller's."""

    def __init__(self, clock: Monotonic, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self._clock = clock
        self._now = clock.monotonic()
        self._lock = threading.RLock()
        self._depth = 0
        self._hosts: dict[str, Host] = {}
        self._vm_faults: dict[str, Faults] = {}
        self._cut: set[frozenset[str]] = set()
        self._agenda = Agenda()
        self._news: list[tuple[MemoryHypervisor, str]] = []
        self.agents: set[str] = set()
        """VMs in whose guests an agent runs."""
        self.touched: set[str] = set()
        """VMs with a domain that came, went or changed since this was last cleared: what a checker has to look at."""

    def touch(self) -> None:
        """Have every guest looked at: something changed that they all depend on."""
        self.touched.update(vm for host in self._hosts.values() for vm in host.guests)

    # -- building and looking ---------------------------------------------------------------------------------

    def host(
        self,
        name: str,
        address: str,
        *,
        memory_mib: int = 65536,
        cpus: int = 16,
        accelerators: tuple[str, ...] = ("kvm", "tcg"),
    ) -> MemoryHypervisor:
        """Add a host with power on and return a connection to its hypervisor."""
        with self.step():
            if name in self._hosts:
                raise ValueError(f"host {name!r} exists already; use connect() for another connection")
            self._hosts[name] = Host(name, address, memory_mib, cpus, accelerators)
            return self.connect(name)

    def connect(self, name: str) -> MemoryHypervisor:
        """Return another connection to a host's hypervisor: one for each start of its daemon.

        It has not seen what happened before; close the old one.
        """
        return MemoryHypervisor(self, self._hosts[name])

    def running(self, vm: str) -> list[str]:
        """Return the hosts on which the guest executes.  More than one is a catastrophe."""
        with self.step():
            return [
                host.name
                for host in self._hosts.values()
                if vm in host.guests and host.guests[vm].state is DomainState.RUNNING
            ]

    def present(self, vm: str) -> dict[str, DomainState]:
        """Return the hosts that have a domain of the VM in any state."""
        with self.step():
            return {h.name: h.guests[vm].state for h in self._hosts.values() if vm in h.guests}

    def plan(self, host: str, vm: str) -> DomainPlan:
        """Return what a guest on a host was started with."""
        return self._hosts[host].guests[vm].plan

    def volumes(self, host: str, vm: str) -> list[str]:
        """Return the volumes (``pool/volume``) that a guest on a host has as disks now."""
        return [disk.volume for disk in self._hosts[host].guests[vm].body.disks() if disk.volume]

    def limits(self, host: str, vm: str) -> dict[str, DiskLimits]:
        """Return the limits of the disks of a guest on a host, by target."""
        devices = self._hosts[host].guests[vm].body.devices.values()
        return {device.disk.target: device.limits for device in devices if device.disk is not None}

    def nics(self, host: str, vm: str) -> dict[str, tuple[bool, NicLimits]]:
        """Return the NICs that a guest on a host has now: whether the link is up, and the limits, by MAC address."""
        devices = self._hosts[host].guests[vm].body.devices.values()
        return {device.mac: (device.link_up, device.nic_limits) for device in devices if device.mac}

    def admitted(self, host: str, vm: str) -> bool:
        """Return whether a live migration may bring the VM to this host now."""
        return vm in self._hosts[host].admitted

    def frozen(self, host: str, vm: str) -> bool:
        """Return whether a guest's file systems are frozen."""
        return self._hosts[host].guests[vm].body.frozen

    def stand_still(self, host: str, vm: str, *, still: bool = True) -> None:
        """Stop the processors of a guest, as somebody does with virsh, or let it go on."""
        with self.step():
            self.pause(self._hosts[host], self._hosts[host].guests[vm], still=still)

    def faults(self, host: str) -> Faults:
        """Return a host's fault switches."""
        return self._hosts[host].faults

    def vm_faults(self, vm: str) -> Faults:
        """Return a VM's fault switches: they go with it from host to host."""
        return self._vm_faults.setdefault(vm, Faults())

    def heard(self, host: str, vm: str) -> bytes:
        """Return what was typed into the guest's console."""
        return bytes(self._hosts[host].guests[vm].body.heard)

    # -- time -------------------------------------------------------------------------------------------------

    def next_event_time(self) -> float | None:
        """Return when something will happen by itself, on the clock; None: never."""
        with self._lock:
            return self._agenda.next_time()

    def advance(self) -> None:
        """Let everything happen that is due by now."""
        with self.step():
            pass

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Hold the world still at the present moment; watchers are told when it moves on."""
        with self._lock:
            if not self._depth:
                self._catch_up()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                news, self._news = ([], self._news) if self._depth else (self._news, [])
        for connection, vm in news:
            connection.tell(vm)

    def _catch_up(self) -> None:
        now = self._clock.monotonic()
        self._depth += 1
        try:
            while (event := self._agenda.pop(now)) is not None:
                self._now = max(self._now, event.due)
                event.action()
        finally:
            self._depth -= 1
        self._now = now

    @property
    def now(self) -> float:
        """The present moment, inside a ``step``."""
        return self._now

    def later(self, delay_s: float, action: "partial[None]") -> Event:
        """Have something happen."""
        return self._agenda.add(self._now + delay_s, action)

    def report(self, connection: MemoryHypervisor, vm: str) -> None:
        """Have a connection's watchers told of a VM at the end of the step."""
        self._news.append((connection, vm))

    # -- faults that happen at a moment ---------------------------------------------------------------------

    def power_off(self, name: str) -> None:
        """Cut a host's power: its guests are gone at once, and nobody there is told."""
        with self.step():
            host = self._hosts[name]
            if not host.powered:
                return
            host.powered = host.libvirtd = False
            for migration in self._migrations_of(name):
                self._doom(migration, f"host {name} does not answer", self.pace.keepalive_s)
            self.touched.update(host.guests)
            host.guests.clear()
            host.admitted.clear()
            for observer in host.observers:
                observer.disconnected()

    def power_on(self, name: str) -> None:
        """Give a host power: its hypervisor answers, and has no guests."""
        with self.step():
            host = self._hosts[name]
            host.powered = host.libvirtd = True

    def stop_libvirtd(self, name: str) -> None:
        """End a host's libvirtd: guests go on, its migrations fail, calls raise HypervisorUnavailable."""
        with self.step():
            host = self._hosts[name]
            host.libvirtd = False
            for migration in self._migrations_of(name):
                self.fail(migration, f"libvirtd of host {name} ended")
            for observer in host.observers:
                observer.disconnected()

    def start_libvirtd(self, name: str) -> None:
        """Start a host's libvirtd again: it finds the guests that still run."""
        with self.step():
            host = self._hosts[name]
            host.libvirtd = host.powered

    def cut_link(self, one: str, other: str) -> None:
        """Cut the network between two hosts; migrations between them fail after the keepalive."""
        with self.step():
            self._cut.add(frozenset((one, other)))
            for migration in self._migrations_of(one):
                if migration.target and {migration.source.name, migration.target.name} == {one, other}:
                    self._doom(migration, f"no link between {one} and {other}", self.pace.keepalive_s)

    def heal_link(self, one: str, other: str) -> None:
        """Mend the network between two hosts; migrations already given up stay so."""
        with self.step():
            self._cut.discard(frozenset((one, other)))

    def crash(self, host: str, vm: str) -> None:
        """Have a guest crash."""
        with self.step():
            self.end(self._hosts[host], vm, ExitReason.CRASHED)

    def guest_shutdown(self, host: str, vm: str) -> None:
        """Have a guest shut itself down, as from its own menu."""
        with self.step():
            self.end(self._hosts[host], vm, ExitReason.SHUTDOWN)

    def guest_writes(self, host: str, vm: str, data: bytes) -> None:
        """Have a guest write to its serial console."""
        with self.step():
            console = self._hosts[host].guests[vm].console
            if console is not None:
                console.put(data)

    # -- what happens to guests; called inside a step ---------------------------------------------------------

    def start(self, host: Host, plan: DomainPlan) -> None:
        """Start a guest."""
        vm = plan.vm.id
        if vm in host.guests:
            raise HypervisorError(f"cannot start {plan.vm.name}: host {host.name} has a domain of it already")
        message = host.faults.start_error or self.vm_faults(vm).start_error
        if message:
            raise HypervisorError(f"cannot start {plan.vm.name}: {message}")
        host.guests[vm] = Guest(plan, DomainState.RUNNING, self._now, body_of(plan, self._now + self.pace.boot_s))
        self._appeared(host, vm)

    def pause(self, host: Host, guest: Guest, *, still: bool) -> None:
        """Stop a guest's processors, or let them run again."""
        guest.paused = still
        guest.state = DomainState.PAUSED if still else DomainState.RUNNING
        self.replugged(host, guest.plan.vm.id)

    def shutdown(self, host: Host, guest: Guest) -> None:
        """Press a guest's power button."""
        deaf = host.faults.ignores_acpi or self.vm_faults(guest.plan.vm.id).ignores_acpi
        body = guest.body
        if deaf or guest.state is not DomainState.RUNNING or self._now < body.booted_at or body.shutting_down:
            return
        body.shutting_down = True
        self.later(self.pace.shutdown_s, partial(self._shut_down, guest.plan.vm.id, body))

    def _shut_down(self, vm: str, body: Body) -> None:
        # The guest finishes its shutdown wherever it executes by now.
        for host in self._hosts.values():
            guest = host.guests.get(vm)
            if guest is not None and guest.body is body and guest.state is DomainState.RUNNING:
                self.end(host, vm, ExitReason.SHUTDOWN)

    def unplug(self, host: Host, guest: Guest, key: tuple[str, ...]) -> None:
        """Ask a guest to let go of a device; one that has not booted does not hear it."""
        body, device = guest.body, guest.body.devices.get(key)
        keeps = host.faults.keeps_devices or self.vm_faults(guest.plan.vm.id).keeps_devices
        if device is not None and not keeps and self._now >= body.booted_at:
            self.later(self.pace.unplug_s, partial(self._unplugged, guest.plan.vm.id, body, key, device))

    def _unplugged(self, vm: str, body: Body, key: tuple[str, ...], device: Device) -> None:
        if body.devices.get(key) is not device:
            return
        del body.devices[key]
        for host in self._hosts.values():
            guest = host.guests.get(vm)
            if guest is not None and guest.body is body:
                self.replugged(host, vm)

    def replugged(self, host: Host, vm: str) -> None:
        """Have it seen that a guest's devices are others than before."""
        self.touched.add(vm)
        for observer in host.observers:
            observer.changed(vm)

    def end(self, host: Host, vm: str, reason: ExitReason) -> None:
        """End a domain; a migration of it fails, if that is not why it ends."""
        guest = host.guests.pop(vm)
        self.touched.add(vm)
        if guest.state is DomainState.INCOMING:
            reason = ExitReason.FAILED  # whatever ended it: it never executed here
        for migration in (guest.outgoing, guest.incoming):
            if migration is not None:
                self.fail(migration, f"the domain on host {host.name} ended ({reason.value})")
        if guest.console is not None:
            guest.console.end()
        if host.libvirtd:
            for observer in host.observers:
                observer.ended(vm, reason)

    def migrate(self, host: Host, guest: Guest, options: MigrationOptions) -> None:
        """Begin a live migration."""
        vm = guest.plan.vm.id
        target = next((h for h in self._hosts.values() if h.address == options.target_address), None)
        faults = (host.faults, self.vm_faults(vm))
        duration = None if any(f.migration_stalls for f in faults) else self.pace.migration_s
        migration = guest.outgoing = Migration(vm, host, target, options, self._now, duration)
        for observer in host.observers:
            observer.changed(vm)
        if target is None or not target.powered or frozenset((host.name, target.name)) in self._cut:
            self._doom(migration, f"cannot connect to {options.target_address}", self.pace.keepalive_s)
        elif target is host:
            self.fail(migration, "attempt to migrate the guest to the same host")
        elif not target.libvirtd:
            self.fail(migration, f"cannot connect to {options.target_address}: connection refused")
        elif target.admitted.get(vm) != options.admission:
            self.fail(migration, f"host {target.name} has not admitted the guest")
        elif vm in target.guests:
            self.fail(migration, f"host {target.name} has a domain of it already")
        else:
            half = Guest(guest.plan, DomainState.INCOMING, self._now, guest.body, incoming=migration)
            target.guests[vm] = half
            self._appeared(target, vm)
            if duration is not None:
                migration.end = self.later(duration, partial(self._complete, migration))

    def _complete(self, migration: Migration) -> None:
        source, target, vm = migration.source, migration.target, migration.vm
        faults = (source.faults, self.vm_faults(vm))
        message = next((f.migration_error for f in faults if f.migration_error), "")
        if message or target is None:
            self.fail(migration, message)
            return
        self.touched.add(vm)
        half = target.guests[vm]
        half.state, half.since, half.incoming = DomainState.RUNNING, self._now, None
        half.stats = MigrationStats(
            downtime_ms=min(self.pace.downtime_ms, migration.options.max_downtime_ms),
            total_ms=round((self._now - migration.begun) * 1000),
        )
        original = source.guests[vm]
        original.outgoing = None
        if any(f.migration_unconfirmed for f in faults):
            original.state = DomainState.PAUSED
            for observer in source.observers:
                observer.job_failed(vm, "the target did not confirm the end of the migration", 1.0)
        else:
            self.end(source, vm, ExitReason.MIGRATED)
        for observer in target.observers:
            observer.changed(vm)

    def fail(self, migration: Migration, message: str) -> None:
        """End a migration without success: the guest goes on at the source, if it is still there."""
        if migration.end is not None:
            migration.end.cancelled = True
        source, target, vm = migration.source, migration.target, migration.vm
        guest = source.guests.get(vm)
        if guest is not None and guest.outgoing is migration:
            guest.outgoing = None
            for observer in source.observers:
                observer.job_failed(vm, message, self.progress(migration))
        half = target.guests.get(vm) if target is not None else None
        if half is not None and half.incoming is migration and target is not None:
            half.incoming = None
            self.end(target, vm, ExitReason.FAILED)

    def _doom(self, migration: Migration, message: str, delay_s: float) -> None:
        if migration.end is not None:
            migration.end.cancelled = True
        migration.duration = None
        migration.end = self.later(delay_s, partial(self.fail, migration, message))

    def progress(self, migration: Migration) -> float:
        """Return the part of a migration that is done; a stalled one stays at a half."""
        if not migration.duration:
            return 0.5
        return min(0.99, (self._now - migration.begun) / migration.duration)

    def _appeared(self, host: Host, vm: str) -> None:
        self.touched.add(vm)
        for observer in host.observers:
            observer.appeared(vm)

    def _migrations_of(self, name: str) -> list[Migration]:
        found = (g.outgoing for h in self._hosts.values() for g in h.guests.values())
        return [m for m in found if m and name in (m.source.name, m.target.name if m.target else "")]
