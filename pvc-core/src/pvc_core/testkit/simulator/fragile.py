"""A hypervisor connection of a daemon that may die, or be stopped, before and after each effect."""

from collections.abc import Callable

from pvc_core.hypervisor.api import (
    Console,
    Domain,
    DomainCallback,
    DomainPlan,
    ExitReason,
    HostFacts,
    Hypervisor,
    MigrationOptions,
    MigrationStats,
)
from pvc_core.model.disk import DiskLimits
from pvc_core.model.node import GuestUsage
from pvc_core.model.vm import NicLimits


class FragileHypervisor:
    """Passes everything on.  ``around`` is called before and after each effect and may raise DaemonDied."""

    def __init__(self, inner: Hypervisor, around: Callable[[str], None]) -> None:
        self._inner = inner
        self._around = around

    def facts(self) -> HostFacts:
        return self._inner.facts()

    def domains(self) -> dict[str, Domain]:
        return self._inner.domains()

    def domain(self, vm: str) -> Domain | None:
        return self._inner.domain(vm)

    def exit_reason(self, vm: str) -> ExitReason:
        return self._inner.exit_reason(vm)

    def migration_stats(self, vm: str) -> MigrationStats:
        return self._inner.migration_stats(vm)

    def usage(self) -> dict[str, GuestUsage]:
        return self._inner.usage()

    def console(self, vm: str) -> Console:
        return self._inner.console(vm)

    def watch(self, callback: DomainCallback) -> None:
        self._inner.watch(callback)

    def close(self) -> None:
        self._inner.close()

    def start(self, plan: DomainPlan) -> None:
        self._around("before start")
        self._inner.start(plan)
        self._around("after start")

    def shutdown(self, vm: str) -> None:
        self._around("before shutdown")
        self._inner.shutdown(vm)
        self._around("after shutdown")

    def destroy(self, vm: str) -> None:
        self._around("before destroy")
        self._inner.destroy(vm)
        self._around("after destroy")

    def admit(self, vm: str, attempt: str, console_log: str) -> str:
        return self._inner.admit(vm, attempt, console_log)

    def dismiss(self, vm: str) -> None:
        self._inner.dismiss(vm)

    def migrate(self, vm: str, options: MigrationOptions) -> None:
        self._around("before migrate")
        self._inner.migrate(vm, options)
        self._around("after migrate")

    def abort_migration(self, vm: str) -> None:
        self._around("before abort")
        self._inner.abort_migration(vm)
        self._around("after abort")

    def forget_job(self, vm: str) -> None:
        self._inner.forget_job(vm)

    def set_note(self, vm: str, note: str) -> None:
        self._around("before note")
        self._inner.set_note(vm, note)
        self._around("after note")

    def pause(self, vm: str) -> None:
        self._around("before pause")
        self._inner.pause(vm)
        self._around("after pause")

    def resume(self, vm: str) -> None:
        self._around("before resume")
        self._inner.resume(vm)
        self._around("after resume")

    def freeze(self, vm: str, deadline_s: float) -> int:
        self._around("before freeze")
        count = self._inner.freeze(vm, deadline_s)
        self._around("after freeze")
        return count

    def thaw(self, vm: str, deadline_s: float) -> None:
        self._around("before thaw")
        self._inner.thaw(vm, deadline_s)
        self._around("after thaw")

    def attach_device(self, vm: str, xml: str) -> None:
        self._around("before attach")
        self._inner.attach_device(vm, xml)
        self._around("after attach")

    def detach_device(self, vm: str, xml: str) -> None:
        self._around("before detach")
        self._inner.detach_device(vm, xml)
        self._around("after detach")

    def resize_disk(self, vm: str, target: str, size_bytes: int) -> None:
        self._inner.resize_disk(vm, target, size_bytes)

    def limit_disk(self, vm: str, target: str, limits: DiskLimits) -> None:
        self._around("before limiting")
        self._inner.limit_disk(vm, target, limits)
        self._around("after limiting")

    def limit_nic(self, vm: str, mac: str, limits: NicLimits) -> None:
        self._around("before limiting")
        self._inner.limit_nic(vm, mac, limits)
        self._around("after limiting")

    def set_link(self, vm: str, mac: str, *, up: bool) -> None:
        self._around("before setting a link")
        self._inner.set_link(vm, mac, up=up)
        self._around("after setting a link")
