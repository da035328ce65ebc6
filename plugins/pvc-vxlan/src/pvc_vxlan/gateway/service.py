"""All gateways of this node, for the driver: made, kept, published, given away.

Thread-safe; work on one network happens in one thread at a time.  ``ensure`` and ``remove`` wait for their turn, what is called
every second passes over a network that is being worked on.
"""

import contextlib
import pwd
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from msgspec import Struct

from pvc_core.model.errors import PvcError
from pvc_core.plugin import Context, NetworkNic
from pvc_vxlan import names
from pvc_vxlan.config import VxlanConfig
from pvc_vxlan.gateway import dnsmasq, masquerade, namespace, process
from pvc_vxlan.gateway.directory import Directory, digest, read, write
from pvc_vxlan.gateway.hosts import dhcp_lines, hosts_of, label, name_lines
from pvc_vxlan.gateway.leases import SCRIPT, Lease, LeaseBook, lease_file, server_duid
from pvc_vxlan.network import VxlanNetwork

Firewall = Callable[[str, VxlanNetwork], None]
"""Puts a network's firewall into its gateway's namespace: ``firewall(network id, network)``."""

_PLUGIN: Final = "vxlan"
_TOLD_S: Final = 600.0
"""For so long a restart of dnsmasq is a problem of its network."""
_LONGEST_PAUSE_S: Final = 60.0
"""Between starts of a dnsmasq that ends again and again; the first pauses are 1, 2, 4 ... s."""


class _Served(Struct, frozen=True, kw_only=True):
    """What a network's gateway shall be."""

    network: VxlanNetwork
    config: str
    hosts: str
    names: str
    problems: tuple[str, ...]


class _Restarts(Struct, frozen=True, kw_only=True):
    """That a network's dnsmasq was found dead."""

    times: int
    last: float
    """Of ``time.monotonic``."""
    error: str = ""
    """Why it could not be started again."""


def domain_of(name: str, network: VxlanNetwork, domain: str) -> str:
    """Return the domain of a network's guests; ``domain``: that of the plugin's section."""
    return network.domain or f"{label(name)}.{domain}"


class Gateways:
    """The gateways that this node has as the primary."""

    def __init__(self, context: Context, config: VxlanConfig, firewall: Firewall) -> None:
        self._context: Final = context
        self._config: Final = config
        self._firewall: Final = firewall
        self._below: Final = Path(context.node.run_directory) / _PLUGIN / "gateway"
        # Not below /run, from which Debian lets nobody run a program.
        self._script: Final = Path(context.node.state_directory) / _PLUGIN / "on-lease"
        self._book: Final = LeaseBook(context.records)
        self._locks: Final[dict[str, threading.Lock]] = {}
        self._mutex: Final = threading.Lock()
        self._served: Final[dict[str, _Served]] = {}
        self._restarts: Final[dict[str, _Restarts]] = {}
        self._masqueraded: set[str] | None = None
        self._masquerading: dict[str, str] | None = None
        """Network -> its prefix that leaves under the node's address; None: its file was not read yet."""

    def ensure(self, network_id: str, name: str, network: VxlanNetwork, nics: list[NetworkNic], mtu: int) -> None:
        """Make the gateway be here as wanted, changing one that is here in place; its bridge must be there.

        A gateway whose DHCP and DNS do not start routes nevertheless; then, as for all else, it raises PvcError.
        """
        with self._turn(network_id):
            if not network.has_gateway:
                self._remove(network_id)
                return
            directory = self._directory(network_id)
            # First, and removed last: by it a part of a gateway is found.
            directory.make()
            with namespace.Plumbing(network_id, mtu) as plumbing, contextlib.ExitStack() as after:
                self._firewall(network_id, network)
                plumbing.address(network)
                after.callback(plumbing.appear, network)
                self._masquerade(network_id, network)
                served = self._wanted(name, network, nics, mtu, directory)
                self._served[network_id] = served
                self._serve(network_id, served, directory)

    def remove(self, network_id: str) -> None:
        """Have no gateway of this network here, nor anything of one; what its leases became is published if that can be."""
        with self._turn(network_id):
            self._remove(network_id)

    def remove_all(self) -> None:
        """Have no gateway here.  Raises the first PvcError after all that can be removed is."""
        ids = sorted({*self.present(), *self._served})
        with contextlib.ExitStack() as turns:
            # In this order everywhere where somebody waits for more than one.
            for network_id in ids:
                turns.enter_context(self._turn(network_id))
            namespace.disconnect_all()
            process.stop_all(self._below)
            self._render_masquerade(dict.fromkeys(ids, ""), check=False)
            failed: PvcError | None = None
            for network_id in ids:
                try:
                    self._remove(network_id, stopped=True)
                except PvcError as error:
                    failed = failed or error
        if failed:
            raise failed

    def present(self) -> list[str]:
        """Return the ids of the networks whose gateway, or a part of it, is here.

        By their directories; should these have been removed, by their cables.
        """
        try:
            found = {path.name for path in self._below.iterdir()}
        except FileNotFoundError:
            found = set()
        if set(namespace.namespaces()) <= found:
            return sorted(found)
        return sorted(found.union(namespace.present()))

    def alive(self, network_id: str) -> bool:
        """Return whether the network's dnsmasq runs."""
        return process.config_of(self._directory(network_id)) is not None

    def mend(self) -> list[str]:
        """Start again what has died; return the networks' ids.  What cannot be started is told by ``problems``."""
        mended = []
        for network_id in list(self._served):
            with self._turn_if_free(network_id) as free:
                served = self._served.get(network_id)
                if free and served is not None and not self.alive(network_id) and self._restart(network_id, served):
                    mended.append(network_id)
        return mended

    def publish(self) -> int:
        """Publish what became of leases; return how many changed.  Raises PvcError without the store: nothing is lost."""
        changed = 0
        for network_id in list(self._served):
            with self._turn_if_free(network_id) as free:
                if free and network_id in self._served:
                    changed += self._publish(network_id)
        return changed

    def leases(self, network_id: str) -> list[Lease]:
        """Return the leases of a network, on a node without its gateway those published.  Raises PvcError without the store."""
        with self._turn(network_id):
            if network_id in self._served:
                found = self._book.current(network_id, self._directory(network_id))
            else:
                found = LeaseBook(self._context.records).known(network_id)
        return sorted(found.values(), key=lambda lease: (lease.version, ip_address(lease.address).packed))

    def problems(self, network_id: str) -> list[str]:
        """Return for people what is not as it should be, of a network whose gateway is here."""
        served = self._served.get(network_id)
        found = list(served.problems) if served else []
        restarts = self._restarts.get(network_id)
        if restarts and restarts.error:
            found.append(f"dnsmasq has died and cannot be started: {restarts.error}")
        elif restarts and time.monotonic() - restarts.last < _TOLD_S:
            times = f", {restarts.times} times" if restarts.times > 1 else ""
            found.append(f"dnsmasq died within the last {_TOLD_S / 60:.0f} minutes and was started again{times}")
        return found

    # --- parts --------------------------------------------------------------------------------------

    def _wanted(
        self, name: str, network: VxlanNetwork, nics: list[NetworkNic], mtu: int, directory: Directory
    ) -> _Served:
        hosts = hosts_of(network, nics)
        domain = domain_of(name, network, self._config.domain)
        zone = dnsmasq.Zone(
            domain=domain,
            forwarders=network.dns_servers or self._config.dns_servers,
            mtu=mtu,
            static6=hosts.static6,
            user=_user(self._below),
            script=self._script,
        )
        return _Served(
            network=network,
            config=dnsmasq.render(network, zone, directory),
            hosts=dhcp_lines(hosts),
            names=name_lines(hosts, domain),
            problems=(*hosts.problems, *dnsmasq.problems_of(network)),
        )

    def _serve(self, network_id: str, served: _Served, directory: Directory) -> None:
        write(directory.hosts, served.hosts)
        write(directory.names, served.names)
        running = process.config_of(directory)
        if running != directory.config(served.config):
            # Where one was ever started: also one whose pid file was lost.
            if directory.configs():
                process.stop(directory)
            died = running is None and directory.loaded.exists()
            self._start(network_id, served, directory)
            if died:
                self._restarts[network_id] = _Restarts(times=self._times(network_id), last=time.monotonic())
        elif read(directory.loaded) != digest(served.hosts, served.names):
            process.reload(directory)
            write(directory.loaded, digest(served.hosts, served.names))

    def _start(self, network_id: str, served: _Served, directory: Directory) -> None:
        self._script.parent.mkdir(parents=True, exist_ok=True)
        write(self._script, SCRIPT, mode=0o755)
        try:
            self._publish(network_id)
            self._drop_foreign(network_id, served.network)
            self._write_leases(network_id, directory)
        except PvcError as error:
            # Without the store: as far as they are known here.
            if not directory.leases.exists():
                raise
            self._context.log.warning("gateway-leases-unread network=%s error=%s", network_id, error)
        process.start(directory, names.gateway_namespace(network_id), served.config, self._context.run)
        write(directory.loaded, digest(served.hosts, served.names))
        self._context.log.info("gateway-dnsmasq-started network=%s", network_id)

    def _restart(self, network_id: str, served: _Served) -> bool:
        now = time.monotonic()
        before = self._restarts.get(network_id)
        times = self._times(network_id)
        if before and now - before.last < min(_LONGEST_PAUSE_S, 2.0 ** (times - 2)):
            return False
        try:
            self._start(network_id, served, self._directory(network_id))
        except PvcError as error:
            self._restarts[network_id] = _Restarts(times=times, last=now, error=str(error))
            self._context.log.warning("gateway-dnsmasq-failed network=%s error=%s", network_id, error)
            return False
        self._restarts[network_id] = _Restarts(times=times, last=now)
        return True

    def _times(self, network_id: str) -> int:
        """Return how often it has died of late, this time included."""
        before = self._restarts.get(network_id)
        return before.times + 1 if before and time.monotonic() - before.last < _TOLD_S else 1

    def _remove(self, network_id: str, *, stopped: bool = False) -> None:
        directory = self._directory(network_id)
        if not stopped and not directory.path.exists() and not namespace.is_here(network_id):
            return
        if not stopped:
            # First: another node may be waiting to be the gateway.
            namespace.disconnect(network_id)
        try:
            if not stopped:
                process.stop(directory)
            # The last changes; they are as good as lost without the store, and stale for a later term.
            with contextlib.suppress(PvcError):
                self._book.publish(network_id, directory)
        finally:
            self._book.forget(network_id)
            self._served.pop(network_id, None)
            self._restarts.pop(network_id, None)
            namespace.remove(network_id)
            self._render_masquerade({network_id: ""}, check=False)
            directory.remove()

    def _publish(self, network_id: str) -> int:
        directory = self._directory(network_id)
        changed = self._book.publish(network_id, directory)
        if changed:
            self._write_leases(network_id, directory)
        return changed

    def _write_leases(self, network_id: str, directory: Directory) -> None:
        leases = self._book.current(network_id, directory)
        write(directory.leases, lease_file(leases.values(), server_duid(network_id)))

    def _drop_foreign(self, network_id: str, network: VxlanNetwork) -> None:
        """Remove the leases of prefixes that the network had before."""
        prefixes = [interface.network for interface in (network.interface4, network.interface6) if interface]
        known = self._book.known(network_id)
        self._book.drop(
            network_id, [text for text in known if not any(ip_address(text) in prefix for prefix in prefixes)]
        )

    def _masquerade(self, network_id: str, network: VxlanNetwork) -> None:
        wanted = str(network.interface4.network) if network.masquerade and network.interface4 else ""
        self._render_masquerade({network_id: wanted}, check=bool(wanted))

    def _render_masquerade(self, changes: dict[str, str], *, check: bool) -> None:
        """Have the host's table be for all networks that want it; each has a file, so that a new daemon knows them all.

        ``changes``: network -> its prefix; empty: it wants it no more.
        """
        with self._mutex:
            if self._masquerading is None:
                files = self._below.glob("*/masquerade")
                self._masquerading = {path.parent.name: text for path in files if (text := read(path))}
            for network_id, text in changes.items():
                file = self._directory(network_id).masquerade
                if text:
                    write(file, text)
                    self._masquerading[network_id] = text
                elif self._masquerading.pop(network_id, ""):
                    file.unlink(missing_ok=True)
            wanted = set(self._masquerading.values())
            if wanted != self._masqueraded or (check and not masquerade.is_there()):
                masquerade.apply(self._context.run, wanted)
                self._masqueraded = wanted

    def _directory(self, network_id: str) -> Directory:
        return Directory(self._below / network_id)

    def _lock(self, network_id: str) -> threading.Lock:
        with self._mutex:
            return self._locks.setdefault(network_id, threading.Lock())

    @contextmanager
    def _turn(self, network_id: str) -> Iterator[None]:
        with self._lock(network_id):
            yield

    @contextmanager
    def _turn_if_free(self, network_id: str) -> Iterator[bool]:
        lock = self._lock(network_id)
        free = lock.acquire(blocking=False)
        try:
            yield free
        finally:
            if free:
                lock.release()


def _user(below: Path) -> str:
    """Return the user that dnsmasq becomes: Debian's package has one for it.

    It reads hosts and names again as that user, so where only root may enter the directory it stays root.
    """
    if not all(parent.stat().st_mode & stat.S_IXOTH for parent in below.parents):
        return "root"
    try:
        return pwd.getpwnam("dnsmasq").pw_name
    except KeyError:
        return "nobody"
