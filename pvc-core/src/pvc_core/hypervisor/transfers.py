"""Outgoing live migrations through libvirt: one thread each, because libvirt's call returns when it has ended."""

import logging
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pvc_core.hypervisor.api import HypervisorError, HypervisorUnavailable, MigrationJob, MigrationOptions
from pvc_core.hypervisor.outgoing import Outgoing, OutgoingJobs

if TYPE_CHECKING:
    from pvc_core.hypervisor.libvirt_calls import Connection, Handle

log = logging.getLogger(__name__)

_REACH_S: Final = 5.0
"""Time to reach the target's libvirt before a migration is begun: libvirtd itself would try for two minutes."""
_BEGIN_S: Final = 10.0
"""Time libvirt may take to begin a job that is to be aborted."""
_PORTS: Final = {"qemu+tcp": 16509, "qemu+tls": 16514}


class Transfers:
    """The migrations away from this host.  May be used from any thread."""

    def __init__(self, migration_uri: str, connect: Callable[[], "Connection"], tell: Callable[[str], None]) -> None:
        """``connect`` opens a connection to this host's libvirt; ``tell`` is called when a migration has ended."""
        self._migration_uri = migration_uri
        self._connect = connect
        self._tell = tell
        self._jobs = OutgoingJobs()

    def begin(self, vm: str, options: MigrationOptions) -> None:
        """Begin one; raises HypervisorError while one is active."""
        job = self._jobs.begin(vm)
        threading.Thread(target=self._carry_out, args=(vm, job, options), name=f"migrate {vm}", daemon=True).start()

    def adopt(self, handle: "Handle") -> None:
        """Note a migration that is in progress already."""
        if handle.outgoing_progress() is not None:
            self._jobs.adopt(handle.vm)

    def look(self, handle: "Handle") -> None:
        """Bring the record of a domain that is here up to date."""
        vm = handle.vm
        job = self._jobs.get(vm)
        if job is None or job.failed:
            return
        progress = handle.outgoing_progress()
        if progress is not None:
            job.progress = max(job.progress, min(0.99, progress))
        elif not job.watched:
            self._failed(vm, job, "it ended without success while libvirt could not be reached")

    def view(self, vm: str) -> MigrationJob | None:
        """Return what there is to say of a VM's migration."""
        return self._jobs.view(vm)

    def gone(self, vm: str) -> None:
        """Note that a VM's domain is not here any more."""
        self._jobs.gone(vm)

    def keep_only(self, vms: set[str]) -> None:
        """Note that no other domains are here any more."""
        for vm in set(self._jobs.vms()) - vms:
            self._jobs.gone(vm)

    def forget(self, vm: str) -> None:
        """Drop the record of a failed migration."""
        self._jobs.forget(vm)

    def abort(self, vm: str, try_now: Callable[[], bool]) -> None:
        """Ask one to stop.  ``try_now`` asks libvirt: False when it has no such job, which it may not have yet."""
        job = self._jobs.get(vm)
        if job is None or job.failed:
            return
        job.stop = True
        deadline = time.monotonic() + _BEGIN_S
        while not job.ended.is_set() and not try_now():
            if not job.watched or time.monotonic() > deadline:
                return
            job.ended.wait(0.05)

    def _carry_out(self, vm: str, job: Outgoing, options: MigrationOptions) -> None:
        began = time.monotonic()
        try:
            self._send(vm, job, options)
        except HypervisorUnavailable as error:
            # Our connection broke, not the migration: what became of it is seen by looking.
            log.warning("migration-unwatched vm=%s error=%s", vm, error)
            self._jobs.unwatch(job)
        except HypervisorError as error:
            self._failed(vm, job, str(error))
        except Exception as error:  # the record must not stay active for ever
            log.exception("migration-failed vm=%s", vm)
            self._jobs.fail(vm, job, repr(error))
        else:
            log.info("migrated vm=%s target=%s seconds=%.2f", vm, options.target_address, time.monotonic() - began)
            self._jobs.succeed(vm, job)
        self._tell(vm)

    def _failed(self, vm: str, job: Outgoing, message: str) -> None:
        log.warning("migration-failed vm=%s error=%s", vm, message)
        self._jobs.fail(vm, job, message)

    def _send(self, vm: str, job: Outgoing, options: MigrationOptions) -> None:
        from pvc_core.hypervisor.libvirt_calls import TransferOptions

        host = f"[{options.target_address}]" if ":" in options.target_address else options.target_address
        target_uri = self._migration_uri.format(address=host)
        _check_reachable(target_uri, options.target_address)
        # A connection of its own: libvirtd serves only five calls of one connection at a time
        # (max_client_requests), and this one takes as long as the migration.
        connection = self._connect()
        try:
            handle = connection.find(vm)
            if handle is None:
                raise HypervisorError("the domain ended")
            if job.stop:
                raise HypervisorError("aborted on request")
            handle.migrate(
                TransferOptions(
                    target_uri=target_uri,
                    data_uri=f"tcp://{host}",
                    console_log=options.admission,
                    max_downtime_ms=options.max_downtime_ms,
                    unsafe=options.unsafe,
                    auto_converge=options.auto_converge,
                )
            )
        finally:
            connection.close()


def _check_reachable(uri: str, address: str) -> None:
    parsed = urllib.parse.urlsplit(uri)
    port = parsed.port or _PORTS.get(parsed.scheme)
    if port is None:
        return
    try:
        socket.create_connection((address, port), timeout=_REACH_S).close()
    except OSError as error:
        raise HypervisorError(
            f"cannot connect to libvirt of the target at {address} port {port}: {error.strerror or error}"
        ) from error
