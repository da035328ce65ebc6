"""libvirt's calls with our values and errors: the only module that imports libvirt (9.0 or newer).

API: https://libvirt.org/html/libvirt-libvirt-domain.html
"""

import contextlib
import enum
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final
from xml.sax.saxutils import escape

import libvirt
import msgspec

from pvc_core.hypervisor.admissions import logging_to
from pvc_core.hypervisor.api import AgentUnavailable, ExitReason, HypervisorError, HypervisorUnavailable
from pvc_core.hypervisor.domainxml import NOTE_NAMESPACE

log = logging.getLogger(__name__)

_KEEPALIVE_COUNT: Final = 5
_LOST: Final = (
    libvirt.VIR_ERR_INVALID_CONN,
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_RPC,
    libvirt.VIR_ERR_AUTH_FAILED,
)


class LibvirtError(HypervisorError):
    """libvirt refused; the message is its own."""


class DomainGone(LibvirtError):
    """There is no such domain (any more)."""


class ConnectionLost(HypervisorUnavailable):
    """The connection to libvirt broke, or could not be made: what was asked may have happened."""


class Phase(enum.Enum):
    """What a domain is doing."""

    EXECUTING = "executing"
    PAUSED = "paused"
    INCOMING = "incoming"
    """The target's half of a live migration."""
    ENDING = "ending"
    """Its processors have stopped for good; its process may still be there."""


_EXECUTING: Final = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED, libvirt.VIR_DOMAIN_PMSUSPENDED)
_NO_AGENT: Final = (
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_AGENT_UNSYNCED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,  # it has no channel for one
)
_ARRIVING: Final = (libvirt.VIR_DOMAIN_PAUSED_MIGRATION, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)
_REASONS: Final = {
    libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: ExitReason.SHUTDOWN,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: ExitReason.DESTROYED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED: ExitReason.CRASHED,
    libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED: ExitReason.MIGRATED,
    # Its process ended without saying why, or a start or an incoming migration failed.
    libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED: ExitReason.FAILED,
}
_REMOVED_REASONS: Final = {
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "it ended",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "it did not answer keepalive probes",
}


class Observer(msgspec.Struct, frozen=True):
    """Gets events, on libvirt's thread: must return at once and make no calls."""

    started: Callable[[str, int], None]
    """VM id, libvirt's id of this run."""
    executing: Callable[[str], None]
    ended: Callable[[str, ExitReason], None]
    changed: Callable[[str], None]
    replugged: Callable[[str], None]
    """Its devices are not what they were."""
    disconnected: Callable[["Connection", str], None]


class TransferOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A live migration in libvirt's terms."""

    target_uri: str
    """Of the target's libvirt, as the source's libvirt reaches it."""
    data_uri: str
    """Where the guest's memory is sent."""
    console_log: str
    """The file on the target that its console is logged to."""
    max_downtime_ms: int
    unsafe: bool
    auto_converge: bool


_loop_lock = threading.Lock()
_loop: threading.Thread | None = None


def _start_event_loop() -> None:
    """Have events delivered, for the life of the process.  libvirt wants this before the first connection."""
    global _loop
    with _loop_lock:
        if _loop is None:
            # Errors become exceptions; by itself libvirt prints them, too.
            libvirt.registerErrorHandler(lambda _context, _error: None, None)
            libvirt.virEventRegisterDefaultImpl()
            _loop = threading.Thread(target=_run_event_loop, name="libvirt events", daemon=True)
            _loop.start()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            log.exception("libvirt-event-failed")


@contextlib.contextmanager
def _errors(connection: libvirt.virConnect | None) -> Iterator[None]:
    """Make libvirt's errors ours; ``connection``: the one that was used, None while it was being opened."""
    try:
        yield
    except libvirt.libvirtError as error:
        message = error.get_error_message() or str(error)
        code = error.get_error_code()
        # An RPC error may also be libvirtd's own, about its connection to the target of a migration.
        if (code in _LOST or error.get_error_domain() == libvirt.VIR_FROM_RPC) and not _is_alive(connection):
            raise ConnectionLost(message) from error
        raise (DomainGone if code == libvirt.VIR_ERR_NO_DOMAIN else LibvirtError)(message) from error


def _is_alive(connection: libvirt.virConnect | None) -> bool:
    try:
        return connection is not None and bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


class Connection:
    """One connection.  May be used from any thread."""

    def __init__(self, uri: str, keepalive_s: int, observer: Observer | None = None) -> None:
        """Connect; may hang as long as libvirtd does.  Raises ConnectionLost, LibvirtError."""
        _start_event_loop()
        self._observer = observer
        self._uri = uri
        with _errors(None):
            self._raw = libvirt.open(uri)
        try:
            with _errors(self._raw):
                self._raw.setKeepAlive(keepalive_s, _KEEPALIVE_COUNT)
                if observer is not None:
                    self._observe()
        except BaseException:
            self.close()
            raise

    def _observe(self) -> None:
        self._raw.registerCloseCallback(self._on_close, None)
        for event, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, self._on_devices),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, self._on_devices),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._on_change),
        ):
            self._raw.domainEventRegisterAny(None, event, callback, None)

    def _on_close(self, _connection: libvirt.virConnect, reason: int, _opaque: None) -> None:
        if self._observer is not None:
            self._observer.disconnected(self, _REMOVED_REASONS.get(reason, "the connection broke"))

    def _on_lifecycle(
        self, _connection: libvirt.virConnect, domain: libvirt.virDomain, event: int, detail: int, _opaque: None
    ) -> None:
        if self._observer is None:
            return
        vm = domain.UUIDString()
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED:
            self._observer.started(vm, domain.ID())
        elif event == libvirt.VIR_DOMAIN_EVENT_RESUMED:
            self._observer.executing(vm)
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            self._observer.ended(vm, _REASONS.get(detail, ExitReason.UNKNOWN))
        self._observer.changed(vm)

    def _on_change(self, _connection: libvirt.virConnect, domain: libvirt.virDomain, *_details: object) -> None:
        if self._observer is not None:
            self._observer.changed(domain.UUIDString())

    def _on_devices(self, connection: libvirt.virConnect, domain: libvirt.virDomain, *details: object) -> None:
        if self._observer is not None:
            self._observer.replugged(domain.UUIDString())
        self._on_change(connection, domain, *details)

    def close(self) -> None:
        """Let go of it, dead or alive."""
        try:
            with contextlib.suppress(libvirt.libvirtError):  # not registered
                self._raw.unregisterCloseCallback()
            self._raw.close()
        except libvirt.libvirtError as error:
            log.debug("libvirt-close-failed uri=%s error=%s", self._uri, error)

    def capabilities(self) -> str:
        """Return the host's capabilities, as XML."""
        with _errors(self._raw):
            return str(self._raw.getCapabilities())

    def version(self) -> str:
        """Return the versions of libvirt and QEMU."""
        with _errors(self._raw):
            return f"libvirt {_dotted(self._raw.getLibVersion())}, QEMU {_dotted(self._raw.getVersion())}"

    def cpus(self) -> int:
        """Return the number of the host's processors."""
        with _errors(self._raw):
            return int(self._raw.getInfo()[2])

    def domains(self) -> list["Handle"]:
        """Return all domains that are more than a definition."""
        with _errors(self._raw):
            handles = [Handle(self._raw, raw) for raw in self._raw.listAllDomains(0)]
            return [handle for handle in handles if handle.exists()]

    def find(self, vm: str) -> "Handle | None":
        """Return the domain with this UUID, None when there is none that is more than a definition."""
        try:
            with _errors(self._raw):
                handle = Handle(self._raw, self._raw.lookupByUUIDString(vm))
                return handle if handle.exists() else None
        except DomainGone:
            return None

    def create(self, xml: str, *, autodestroy: bool = False) -> "Handle":
        """Start a transient domain; ``autodestroy``: it ends with this connection."""
        with _errors(self._raw):
            flags = libvirt.VIR_DOMAIN_START_AUTODESTROY if autodestroy else 0
            return Handle(self._raw, self._raw.createXML(xml, flags))

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return the figures of all active domains, by UUID."""
        kinds = (
            libvirt.VIR_DOMAIN_STATS_CPU_TOTAL
            | libvirt.VIR_DOMAIN_STATS_BALLOON
            | libvirt.VIR_DOMAIN_STATS_BLOCK
            | libvirt.VIR_DOMAIN_STATS_INTERFACE
        )
        # NOWAIT: rather no balloon figures of a guest in the middle of something than an answer that hangs on it.
        flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
        with _errors(self._raw):
            return {d.UUIDString(): dict(s) for d, s in self._raw.getAllDomainStats(kinds, flags)}


class Handle:
    """One domain."""

    def __init__(self, connection: libvirt.virConnect, raw: libvirt.virDomain) -> None:
        self._connection = connection
        self._raw = raw

    @property
    def vm(self) -> str:
        """Return its UUID."""
        return str(self._raw.UUIDString())

    @property
    def run(self) -> int:
        """Return libvirt's id of this run, -1 when it is ending."""
        return int(self._raw.ID())

    def exists(self) -> bool:
        """Return whether it is there, and more than a definition."""
        try:
            with _errors(self._connection):
                return self.run > 0 or not self._raw.isPersistent()
        except DomainGone:
            return False

    def xml(self) -> str:
        """Return its live XML."""
        with _errors(self._connection):
            return str(self._raw.XMLDesc(0))

    def phase(self) -> Phase:
        """Return what it is doing."""
        with _errors(self._connection):
            state, reason = self._raw.state()
            if state in _EXECUTING:
                return Phase.EXECUTING
            if state != libvirt.VIR_DOMAIN_PAUSED:
                return Phase.ENDING
            # A source's own guest pauses for migration too, at the end; only a target has no statistics.
            if reason in _ARRIVING and self._job() is None:
                return Phase.INCOMING
            return Phase.PAUSED

    def _job(self) -> dict[str, Any] | None:
        """Return the statistics of the job in progress, empty without one; None for an incoming migration."""
        try:
            return dict(self._raw.jobStats())
        except libvirt.libvirtError as error:
            match error.get_error_code():
                case libvirt.VIR_ERR_OPERATION_UNSUPPORTED:  # "available only on the source host"
                    return None
                case libvirt.VIR_ERR_OPERATION_INVALID:  # "domain is not running": it ends at this moment
                    return {}
                case _:
                    raise

    def outgoing_progress(self) -> float | None:
        """Return how much of a migration away from here is done (0-1), None when there is none."""
        with _errors(self._connection):
            stats = self._job() or {}
        if stats.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT:
            return None
        total, left = stats.get("memory_total", 0), stats.get("memory_remaining", 0)
        return float(total - left) / total if total else 0.0

    def arrival(self) -> tuple[int | None, int | None]:
        """Return downtime and total time, in ms, of the migration that brought it here."""
        flags = libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
        with _errors(self._connection):
            stats = self._raw.jobStats(flags)
        if stats.get("operation") != libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN:
            return None, None
        return stats.get("downtime"), stats.get("time_elapsed")

    def press_power_button(self) -> None:
        """Send the ACPI event.  Not through the guest agent: libvirt waits a minute for one that hangs."""
        with _errors(self._connection):
            self._raw.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)

    def destroy(self) -> None:
        """Cut its power; one that is ending or gone is success."""
        self._if_active(self._raw.destroy)

    def _if_active(self, call: Callable[[], object]) -> bool:
        """Make a call; False when libvirt finds nothing to do it to."""
        try:
            with _errors(self._connection):
                try:
                    call()
                except libvirt.libvirtError as error:
                    if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
                        raise
                    return False
        except DomainGone:
            return False
        return True

    def migrate(self, options: TransferOptions) -> None:
        """Move it, guest and all; returns when that is done or has failed."""
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
        if options.unsafe:
            flags |= libvirt.VIR_MIGRATE_UNSAFE
        if options.auto_converge:
            flags |= libvirt.VIR_MIGRATE_AUTO_CONVERGE
        if options.target_uri.startswith("qemu+tls:"):
            flags |= libvirt.VIR_MIGRATE_TLS
        with _errors(self._connection):
            self._raw.migrateSetMaxDowntime(options.max_downtime_ms, 0)
            now = self._raw.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE | libvirt.VIR_DOMAIN_XML_SECURE)
            parameters = {
                libvirt.VIR_MIGRATE_PARAM_URI: options.data_uri,
                libvirt.VIR_MIGRATE_PARAM_DEST_XML: logging_to(now, options.console_log),
            }
            self._raw.migrateToURI3(options.target_uri, parameters, flags)

    def abort_job(self) -> bool:
        """Stop a migration away from here; False when there is none (yet, or any more)."""
        return self._if_active(self._raw.abortJob)

    def set_note(self, note: str) -> None:
        """Replace the note in its metadata; empty: remove it."""
        xml = f"<note>{escape(note)}</note>" if note else None
        with _errors(self._connection):
            self._raw.setMetadata(
                libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml, "note", NOTE_NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_LIVE
            )

    def suspend(self) -> None:
        """Stop its processors; stopped already is success."""
        with _errors(self._connection):
            self._raw.suspend()

    def resume(self) -> None:
        """Let its processors run again, if it was ``suspend`` that stopped them."""
        with _errors(self._connection):
            state, reason = self._raw.state()
            if state in _EXECUTING:
                return
            if (state, reason) != (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER):
                raise LibvirtError(f"it stands still for another reason than a pause (state {state}, reason {reason})")
            self._raw.resume()

    def freeze(self, deadline_s: float) -> int:
        """Have the agent freeze all file systems; return how many.  AgentUnavailable only when it was not asked to."""
        with self._agent(deadline_s):
            self._raw.getTime()
        with _errors(self._connection):
            return int(self._raw.fsFreeze())

    def thaw(self, deadline_s: float) -> None:
        """Have the agent thaw all file systems."""
        with self._agent(deadline_s):
            self._raw.fsThaw()

    @contextlib.contextmanager
    def _agent(self, deadline_s: float) -> Iterator[None]:
        """Give the agent so much time to answer: by itself libvirt waits for ever."""
        with _errors(self._connection):
            try:
                self._raw.agentSetResponseTimeout(max(1, round(deadline_s)))
                yield
            except libvirt.libvirtError as error:
                if error.get_error_code() in _NO_AGENT:
                    raise AgentUnavailable(error.get_error_message() or str(error)) from error
                raise

    def attach(self, xml: str) -> None:
        """Plug a device in."""
        with _errors(self._connection):
            self._raw.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def detach(self, alias: str) -> None:
        """Ask the guest to let go of a device, without waiting until it has."""
        with _errors(self._connection):
            self._raw.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def limit_disk(self, target: str, rates: dict[str, int]) -> None:
        """Set the limits of a disk, all at once."""
        with _errors(self._connection):
            self._raw.setBlockIoTune(target, rates, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def limit_nic(self, mac: str, rates: dict[str, int]) -> None:
        """Set the limits of a NIC, all at once."""
        with _errors(self._connection):
            self._raw.setInterfaceParameters(mac, rates, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def update(self, xml: str) -> None:
        """Change what can be changed of a device; all else of it must be as it is."""
        with _errors(self._connection):
            self._raw.updateDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def resize_disk(self, target: str, size_bytes: int) -> None:
        """Tell the guest the new size of a disk."""
        with _errors(self._connection):
            self._raw.blockResize(target, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    def console(self, received: Callable[[bytes], None], ended: Callable[[], None]) -> "ConsoleStream":
        """Open the serial console, ending another client's connection; callbacks run on libvirt's thread."""
        with _errors(self._connection):
            stream = self._connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
            self._raw.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
            return ConsoleStream(self._connection, stream, received, ended)


class ConsoleStream:
    """A console's stream: libvirt's thread reads, a caller's thread writes."""

    _QUIET: Final = libvirt.VIR_STREAM_EVENT_READABLE | libvirt.VIR_STREAM_EVENT_HANGUP | libvirt.VIR_STREAM_EVENT_ERROR
    _FULL: Final = _QUIET | libvirt.VIR_STREAM_EVENT_WRITABLE

    def __init__(
        self,
        connection: libvirt.virConnect,
        stream: libvirt.virStream,
        received: Callable[[bytes], None],
        ended: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._received = received
        self._ended = ended
        self._drained = threading.Event()
        self._write_lock = threading.Lock()
        self._end_lock = threading.Lock()
        self._open = True
        stream.eventAddCallback(self._QUIET, self._on_event, None)

    def _on_event(self, stream: libvirt.virStream, events: int, _opaque: None) -> None:
        try:
            if events & libvirt.VIR_STREAM_EVENT_WRITABLE:
                stream.eventUpdateCallback(self._QUIET)
                self._drained.set()
            while events & libvirt.VIR_STREAM_EVENT_READABLE:
                data = stream.recv(65536)
                if not isinstance(data, bytes):
                    break  # -2: nothing more now
                if not data:
                    self.close()
                    return
                self._received(data)
        except libvirt.libvirtError as error:
            log.debug("console-ended error=%s", error)
            self.close()
            return
        if events & (libvirt.VIR_STREAM_EVENT_HANGUP | libvirt.VIR_STREAM_EVENT_ERROR):
            self.close()

    def write(self, data: bytes) -> None:
        """Send all of it; waits while the guest does not read."""
        with self._write_lock:
            while data:
                self._drained.clear()
                if not self._open:
                    raise HypervisorError("the console was closed: the guest ended, or somebody else opened it")
                with _errors(self._connection):
                    sent = self._stream.send(data)
                    if sent < 0:  # -2: full
                        self._stream.eventUpdateCallback(self._FULL)
                if sent < 0:
                    self._drained.wait()
                else:
                    data = data[sent:]

    def close(self) -> None:
        """End it; may be called twice and from any thread."""
        with self._end_lock:
            if not self._open:
                return
            self._open = False
        self._ended()
        self._drained.set()
        for undo in (self._stream.eventRemoveCallback, self._stream.abort):
            try:
                undo()
            except libvirt.libvirtError as error:  # the connection or the guest is gone already
                log.debug("console-close-failed error=%s", error)


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
