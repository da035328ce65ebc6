"""One daemon's connection to the hypervisor of a host in the in-memory world."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pvc_core.hypervisor.api import (
    AgentUnavailable,
    Domain,
    DomainCallback,
    DomainPlan,
    DomainState,
    ExitReason,
    HostFacts,
    HypervisorError,
    HypervisorUnavailable,
    JobState,
    MigrationJob,
    MigrationOptions,
    MigrationStats,
)
from pvc_core.hypervisor.console import ConsoleBuffer
from pvc_core.hypervisor.memory_guest import Guest, Host, device_of
from pvc_core.model.disk import DiskLimits
from pvc_core.model.node import GuestUsage
from pvc_core.model.vm import NicLimits

if TYPE_CHECKING:
    from pvc_core.hypervisor.memory import MemoryWorld


class MemoryConsole:
    """A guest's console."""

    def __init__(self, guest: Guest) -> None:
        if guest.console is not None:
            guest.console.end()
        self._guest = guest
        self._buffer = guest.console = ConsoleBuffer()

    def read(self) -> bytes:
        return self._buffer.get()

    def write(self, data: bytes) -> None:
        self._guest.body.heard += data

    def close(self) -> None:
        if self._guest.console is self._buffer:
            self._guest.console = None
        self._buffer.end()


class MemoryHypervisor:
    """Implements ``Hypervisor``.  Knows why a domain ended only if it was connected then."""

    def __init__(self, world: "MemoryWorld", host: Host) -> None:
        self._world = world
        self._host = host
        self._exits: dict[str, ExitReason] = {}
        self._failed: dict[str, MigrationJob] = {}
        self._callbacks: list[DomainCallback] = []
        self._closed = False
        host.observers.append(self)

    # -- what the world tells ---------------------------------------------------------------------------------

    def appeared(self, vm: str) -> None:
        """A domain is here: the reason of an earlier one's end says nothing any more."""
        self._exits.pop(vm, None)
        self._failed.pop(vm, None)
        self.changed(vm)

    def ended(self, vm: str, reason: ExitReason) -> None:
        """A domain is gone."""
        self._exits[vm] = reason
        self._failed.pop(vm, None)
        self.changed(vm)

    def job_failed(self, vm: str, error: str, progress: float) -> None:
        """An outgoing migration ended and the domain is still here."""
        self._failed[vm] = MigrationJob(state=JobState.FAILED, progress=progress, error=error)
        self.changed(vm)

    def disconnected(self) -> None:
        """From here on something may be missed, so what was seen is no longer the last."""
        self._exits.clear()

    def changed(self, vm: str) -> None:
        """Have the watchers told."""
        self._world.report(self, vm)

    def tell(self, vm: str) -> None:
        """Tell the watchers."""
        if self._host.libvirtd and not self._closed:
            for callback in self._callbacks:
                callback(vm)

    # -- Hypervisor -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _call(self) -> Iterator[Host]:
        with self._world.step():
            if self._closed:
                raise HypervisorUnavailable("this connection to the hypervisor was closed")
            if not self._host.powered:
                raise HypervisorUnavailable(f"host {self._host.name} has no power")
            if not self._host.libvirtd:
                raise HypervisorUnavailable(f"libvirtd of host {self._host.name} does not answer")
            yield self._host

    def _guest(self, vm: str) -> Guest:
        guest = self._host.guests.get(vm)
        if guest is None:
            raise HypervisorError(f"host {self._host.name} has no domain of VM {vm}")
        return guest

    def facts(self) -> HostFacts:
        with self._call() as host:
            used = sum(g.plan.vm.memory_mib for g in host.guests.values())
            return HostFacts(
                cpus=host.cpus,
                memory_mib=host.memory_mib,
                free_mib=max(0, host.memory_mib - used),
                version="memory",
                accelerators=host.accelerators,
                machine_types=("q35",),
            )

    def domains(self) -> dict[str, Domain]:
        with self._call() as host:
            return {vm: self._domain(vm, guest) for vm, guest in sorted(host.guests.items())}

    def domain(self, vm: str) -> Domain | None:
        with self._call() as host:
            guest = host.guests.get(vm)
            return None if guest is None else self._domain(vm, guest)

    def _domain(self, vm: str, guest: Guest) -> Domain:
        spec, job = guest.plan.vm, self._failed.get(vm)
        if guest.outgoing is not None:
            job = MigrationJob(state=JobState.ACTIVE, progress=self._world.progress(guest.outgoing))
        wanted = spec.accelerator
        return Domain(
            id=vm,
            name=spec.name,
            state=guest.state,
            memory_mib=spec.memory_mib,
            vcpus=spec.vcpus,
            job=job,
            accelerator=self._host.accelerators[0] if wanted == "auto" else wanted,
            vnc=f"{self._host.address}:5900" if spec.vnc else "",
            running_for_s=self._world.now - guest.since,
            disks=guest.body.disks(),
            controllers=guest.body.controllers(),
            nics=guest.body.nics(),
            note=guest.note,
        )

    def exit_reason(self, vm: str) -> ExitReason:
        with self._call():
            return self._exits.get(vm, ExitReason.UNKNOWN)

    def start(self, plan: DomainPlan) -> None:
        with self._call() as host:
            wanted = plan.vm.accelerator
            if wanted not in ("auto", *host.accelerators):
                raise HypervisorError(f"cannot start {plan.vm.name}: host {host.name} has no usable {wanted}")
            self._world.start(host, plan)

    def shutdown(self, vm: str) -> None:
        with self._call() as host:
            self._world.shutdown(host, self._guest(vm))

    def destroy(self, vm: str) -> None:
        with self._call() as host:
            if vm in host.guests:
                self._world.end(host, vm, ExitReason.DESTROYED)

    def admit(self, vm: str, attempt: str, console_log: str) -> str:
        del console_log
        with self._call() as host:
            host.admitted[vm] = attempt
            return attempt

    def dismiss(self, vm: str) -> None:
        with self._call() as host:
            host.admitted.pop(vm, None)

    def migrate(self, vm: str, options: MigrationOptions) -> None:
        with self._call() as host:
            guest = self._guest(vm)
            if guest.outgoing is not None:
                raise HypervisorError(f"{guest.plan.vm.name} is being migrated already")
            if guest.state is not DomainState.RUNNING:
                raise HypervisorError(f"{guest.plan.vm.name} is {guest.state.value}: only a running domain migrates")
            self._failed.pop(vm, None)
            self._world.migrate(host, guest, options)

    def abort_migration(self, vm: str) -> None:
        with self._call() as host:
            guest = host.guests.get(vm)
            if guest is not None and guest.outgoing is not None:
                self._world.fail(guest.outgoing, "aborted on request")

    def forget_job(self, vm: str) -> None:
        with self._call():
            self._failed.pop(vm, None)

    def migration_stats(self, vm: str) -> MigrationStats:
        with self._call():
            return self._guest(vm).stats

    def set_note(self, vm: str, note: str) -> None:
        with self._call():
            self._guest(vm).note = note

    def pause(self, vm: str) -> None:
        with self._call() as host:
            guest = self._guest(vm)
            if guest.state is DomainState.INCOMING:
                raise HypervisorError(f"cannot pause {guest.plan.vm.name}: it does not run yet")
            if guest.state is DomainState.RUNNING:
                self._world.pause(host, guest, still=True)

    def resume(self, vm: str) -> None:
        with self._call() as host:
            guest = self._guest(vm)
            if guest.state is DomainState.RUNNING:
                return
            if not guest.paused:
                raise HypervisorError(f"cannot resume {guest.plan.vm.name}: it stands still for another reason")
            self._world.pause(host, guest, still=False)

    def freeze(self, vm: str, deadline_s: float) -> int:
        del deadline_s
        with self._call():
            body = self._agent(vm).body
            body.frozen = True
            message = self._world.vm_faults(vm).freeze_error
            if message:
                raise HypervisorError(message)
            return 1

    def thaw(self, vm: str, deadline_s: float) -> None:
        del deadline_s
        with self._call():
            body = self._agent(vm).body
            message = self._world.vm_faults(vm).thaw_error
            if message:
                raise HypervisorError(message)
            body.frozen = False

    def _agent(self, vm: str) -> Guest:
        guest = self._guest(vm)
        if vm not in self._world.agents or guest.state is not DomainState.RUNNING:
            raise AgentUnavailable(f"no agent of {guest.plan.vm.name} answers")
        return guest

    def usage(self) -> dict[str, GuestUsage]:
        with self._call() as host:
            return {
                vm: GuestUsage(cpu_percent=1.0, memory_used_mib=g.plan.vm.memory_mib) for vm, g in host.guests.items()
            }

    def attach_device(self, vm: str, xml: str) -> None:
        key, device = device_of(xml)
        with self._call() as host:
            guest = self._device_guest(vm)
            if key in guest.body.devices:
                raise HypervisorError(f"{guest.plan.vm.name} has a device {' '.join(key)} already")
            guest.body.devices[key] = device
            self._world.replugged(host, vm)

    def detach_device(self, vm: str, xml: str) -> None:
        key, _ = device_of(xml)
        with self._call() as host:
            self._world.unplug(host, self._device_guest(vm), key)

    def resize_disk(self, vm: str, target: str, size_bytes: int) -> None:
        with self._call():
            guest = self._device_guest(vm)
            guest.body.disk(guest.plan.vm.name, target)
            guest.body.disk_bytes[target] = size_bytes

    def limit_disk(self, vm: str, target: str, limits: DiskLimits) -> None:
        with self._call():
            guest = self._device_guest(vm)
            guest.body.disk(guest.plan.vm.name, target).limits = limits

    def limit_nic(self, vm: str, mac: str, limits: NicLimits) -> None:
        with self._call():
            guest = self._device_guest(vm)
            guest.body.nic(guest.plan.vm.name, mac).nic_limits = limits

    def set_link(self, vm: str, mac: str, *, up: bool) -> None:
        with self._call():
            guest = self._device_guest(vm)
            guest.body.nic(guest.plan.vm.name, mac).link_up = up

    def _device_guest(self, vm: str) -> Guest:
        guest = self._guest(vm)
        message = self._host.faults.device_error or self._world.vm_faults(vm).device_error
        if message:
            raise HypervisorError(f"cannot change the devices of {guest.plan.vm.name}: {message}")
        return guest

    def console(self, vm: str) -> MemoryConsole:
        with self._call():
            return MemoryConsole(self._guest(vm))

    def watch(self, callback: DomainCallback) -> None:
        self._callbacks.append(callback)

    def close(self) -> None:
        with self._world.step():
            self._closed = True
            if self in self._host.observers:
                self._host.observers.remove(self)
