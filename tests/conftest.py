"""What the system tests share: a cluster with a pool and a network, and guests on it; and a busy client of ZooKeeper.

``cluster`` is a view of the session's sandbox.  Its timing is the default one, except that a guest which crashed is
started again soon, and given up after three times.
"""

import itertools
import re
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

import pytest
import yaml

POOL, NETWORK = "systemtest", "systemtest"
TIMING = {"restart_backoff": 0.3, "restart_give_up": 3}
DAEMON = "pvcnoded"
TICK = re.compile(r"tick (\d+) (\d+\.\d\d)\r?\n")
"""A whole beat.  It may stand behind the shell's prompt."""


class Tick(NamedTuple):
    """One beat of a Linux guest, as its console logs have it."""

    number: int
    uptime_s: float


class Cluster:
    """The session's sandbox, as a test asks it."""

    def __init__(self, sandbox: Any, eventually: Callable[..., Any]) -> None:
        self.sandbox = sandbox
        self.pvc = sandbox.pvc
        self.eventually = eventually
        self._store: Any = None

    @property
    def store(self) -> Any:
        """The state store itself: an answer takes a millisecond, a command a few hundred."""
        if self._store is None:
            from pvc_core.config.load import load_client
            from pvc_core.store.connect import open_store
            from pvc_core.testkit.lan import entered

            config = load_client(str(self.sandbox.client_config))
            with entered(self.sandbox.layout.switch):  # its threads stay there
                self._store = open_store(config.cluster, 10.0, wait_s=30.0, patience_s=60.0)
        return self._store

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    # --- commands -----------------------------------------------------------------------------------

    def start_command(self, *arguments: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a ``pvc`` command, to be looked at or killed while it works."""
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(self.pvc.argv(*arguments), **(quiet | options))

    def refused(self, *arguments: str, deadline_s: float = 60.0) -> tuple[int, str]:
        """Run a command that must fail as commands should: status 1 or 2, one line on stderr; return both."""
        done = self.pvc.run(*arguments, deadline_s=deadline_s)
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        assert done.returncode in (1, 2), done
        assert len(lines) == 1, done.stderr
        assert "Traceback" not in done.stderr
        return done.returncode, lines[0]

    # --- VMs ----------------------------------------------------------------------------------------

    def info(self, vm: str) -> dict[str, Any]:
        found: dict[str, Any] = self.pvc.json("vm", "info", vm)
        return found

    def view(self, vm: str) -> dict[str, Any]:
        found: dict[str, Any] = self.info(vm)["view"]
        return found

    def place(self, vm: str) -> tuple[str, str | None]:
        """Return a VM's state and the node it runs on."""
        view = self.view(vm)
        return view["state"], view["running_on"]

    def id(self, vm: str) -> str:
        return str(self.view(vm)["id"])

    def names(self) -> set[str]:
        return {row["name"] for row in self.pvc.json("vm", "list")}

    def copies(self, id_: str) -> dict[str, str]:
        """Return what libvirt of each node has of a VM: node -> ``running``, or the state of a domain that is not."""
        found = {node: self.copy(node, id_) for node in self.sandbox.nodes()}
        return {node: state for node, state in found.items() if state}

    def registers(self, id_: str) -> str:
        """Return the processors' registers of a VM on each node that has it: they show where a guest is that stands still."""
        ask = ["virsh", "qemu-monitor-command", "--hmp", id_, "info registers"]
        return "\n".join(f"{node}: {self.sandbox.exec(node, ask).stdout}" for node in self.copies(id_))

    def copy(self, node: str, id_: str) -> str:
        """Return the state of a VM's domain on one node, empty when there is none."""
        import libvirt

        libvirt.registerErrorHandler(lambda *_: None, None)
        connection = libvirt.open(self.sandbox.uri(node))
        try:
            state = connection.lookupByUUIDString(id_).state()[0]
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            return ""
        finally:
            connection.close()
        return "running" if state == libvirt.VIR_DOMAIN_RUNNING else f"state {state}"

    def emulators(self, node: str, id_: str) -> list[str]:
        """Return the process ids, as the node sees them, of a VM's emulators there."""
        return self.sandbox.exec(node, ["pgrep", "-f", f"qemu-system.* -uuid {id_}"]).stdout.split()

    def kill_emulator(self, node: str, id_: str) -> None:
        """Let a guest crash."""
        (pid,) = self.emulators(node, id_)
        self.sandbox.exec(node, ["kill", "-9", pid]).check()

    def consoles(self, id_: str) -> dict[str, str]:
        """Return what a VM wrote on its console, by node."""
        logs = {node: self.sandbox.logs(node).get(f"console/{id_}") for node in self.sandbox.nodes()}
        return {node: path.read_text(errors="replace") for node, path in logs.items() if path is not None}

    def console(self, id_: str) -> str:
        return "\n".join(self.consoles(id_).values())

    @contextmanager
    def shell(self, node: str, id_: str) -> Iterator[Callable[[str, str], None]]:
        """Give a function that types a command on a Linux guest's console, and waits for what it prints."""
        import libvirt

        connection = libvirt.open(self.sandbox.uri(node))
        stream = connection.newStream(0)
        connection.lookupByUUIDString(id_).openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)

        def type_(command: str, printed: str) -> None:
            before = self.consoles(id_)[node].count(printed)
            stream.send(f"{command}\n".encode())
            self.eventually(
                f"{printed!r} on the console", lambda: self.consoles(id_)[node].count(printed) > before, within_s=60
            )

        try:
            yield type_
        finally:
            stream.abort()
            connection.close()

    def ticks(self, id_: str) -> list[Tick]:
        """Return the beats of a Linux guest on all nodes, sorted."""
        return sorted(Tick(int(n), float(s)) for text in self.consoles(id_).values() for n, s in TICK.findall(text))

    # --- nodes --------------------------------------------------------------------------------------

    def service(self, node: str, name: str = DAEMON) -> Any:
        return self.sandbox.host(node).services()[name]

    def signal(self, node: str, number: signal.Signals, name: str = DAEMON) -> None:
        self.sandbox.host(node).signal_service(name, number)

    def primary(self) -> str | None:
        return next((row["name"] for row in self.pvc.rows("node", "list") if row["primary"]), None)

    def node(self, name: str) -> dict[str, Any]:
        return next(row for row in self.pvc.json("node", "list") if row["name"] == name)

    def node_info(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.pvc.json("node", "info", name)
        return found

    def fence_stage(self, node: str) -> str | None:
        """Return how far the fencing of a node's last loss is; None when it was never lost, or nobody can tell now."""
        return next((row["stage"] for row in self.pvc.rows("fence", "list") if row["node"] == node), None)

    def out_of_service(self, node: str) -> bool:
        """Whether the node's spec says so; what the node itself has reported of it may be of before its loss."""
        return bool(self.node_info(node)["spec"]["scheduling"] == "drain")

    def bring_into_service(self, *nodes: str) -> None:
        """Wait until nodes that are on are in the cluster, and put those that were fenced into service again."""
        self.sandbox.wait_ready(nodes)
        over = ("returned", "cancelled")
        for node in nodes:
            if self.fence_stage(node) is not None:
                self.eventually(f"the fencing of {node} is over", lambda node=node: self.fence_stage(node) in over)
            if self.out_of_service(node):
                self.pvc("node", "ready", node)

    def lease(self, node: str) -> int | None:
        """Return the generation of a node's lease; None when it has none."""
        found: int | None = self.node_info(node)["lease"]
        return found


class Guests:
    """Makes VMs, and removes them in the end."""

    def __init__(self, cluster: Cluster, directory: Any, prefix: str) -> None:
        self._cluster = cluster
        self._directory = directory
        self._prefix = prefix
        self._numbers = itertools.count(1)
        self._ids: list[str] = []
        self._volumes: list[str] = []

    def name(self) -> str:
        """Return a name that no other VM has."""
        return f"{self._prefix}-{next(self._numbers)}-{uuid.uuid4().hex[:6]}"

    def definition(self, name: str, **fields: Any) -> str:
        """Write a definition; return the file's path."""
        path = self._directory / f"{name}.yml"
        path.write_text(yaml.safe_dump({"name": name, "memory": "16M", **fields}, sort_keys=False))
        return str(path)

    def volume(self, name: str, *, deaf: bool = False) -> str:
        """Import the boot sector as a volume; return ``pool/volume``."""
        image = self._cluster.sandbox.shared / ("deaf.raw" if deaf else "heeding.raw")
        self._cluster.pvc("storage", "volume", "import", f"{POOL}/{name}", str(image))
        return self.with_volume(name)

    def with_volume(self, name: str) -> str:
        """Remove this volume in the end too."""
        self._volumes.append(f"{POOL}/{name}")
        return f"{POOL}/{name}"

    def boot_sector(self, *, node: str, deaf: bool = False, start: bool = True, **fields: Any) -> str:
        """Define a VM of 16 MiB, up in 0.2 s, that shuts down by ACPI unless it is deaf; return its name."""
        name = self.name()
        self.volume(name, deaf=deaf)
        return self.define(name, node=node, start=start, disks=[{"pool": POOL, "volume": name}], **fields)

    def linux(self, *, node: str, octet: int | None = None, start: bool = True, **fields: Any) -> str:
        """Define a Linux guest that counts on its disk, with an address in the guests' network; return its name."""
        from pvc_sandbox.images import LINUX_MEMORY_MIB, tiny_linux

        name, linux = self.name(), tiny_linux()
        self._cluster.pvc("storage", "volume", "add", self.with_volume(name), "1M")
        layout = self._cluster.sandbox.layout
        address = {"ip": f"{layout.guest_address(octet)}/24"} if octet else {}
        return self.define(
            name,
            node=node,
            start=start,
            memory=LINUX_MEMORY_MIB,
            direct_kernel={
                "kernel": str(linux.kernel),
                "initrd": str(linux.initrd),
                "cmdline": linux.command_line(disk=1, **address),
            },
            disks=[{"pool": POOL, "volume": name}],
            nics=[{"network": NETWORK}] if octet else [],
            **fields,
        )

    def define(self, name: str, *, node: str, start: bool = True, **fields: Any) -> str:
        arguments = ["vm", "define", self.definition(name, **fields), "--node", node, *(["--start"] if start else [])]
        self._cluster.pvc(*arguments)
        self.known(name)
        return name

    def known(self, name: str) -> str:
        """Remove this VM in the end too; return its id."""
        self._ids.append(self._cluster.id(name))
        return self._ids[-1]

    def remove(self) -> None:
        """Remove all VMs and volumes that are left, whatever they are called now."""
        left = {row["id"] for row in self._cluster.pvc.json("vm", "list")}
        for id_ in self._ids:
            if id_ in left:
                self._cluster.pvc("vm", "remove", id_, "--force", "--volumes", "--yes")
        volumes = self._left()
        for volume in reversed(self._volumes):
            if volume in volumes and not volumes[volume]["deleting"]:
                self._cluster.pvc("storage", "volume", "remove", volume, "--yes")
        self._cluster.eventually("the volumes are gone", lambda: not self._left().keys() & set(self._volumes))

    def _left(self) -> dict[str, dict[str, Any]]:
        rows = self._cluster.pvc.json("storage", "volume", "list")
        return {f"{row['pool']}/{row['name']}": row for row in rows}


@pytest.fixture(scope="session")
def view_of(eventually: Callable[..., Any]) -> Callable[[Any], Cluster]:
    """Return what makes a view of another sandbox, for a test that has its own."""
    return lambda sandbox: Cluster(sandbox, eventually)


@pytest.fixture(scope="session")
def cluster(sandbox: Any, eventually: Callable[..., Any]) -> Iterator[Cluster]:
    """Return the cluster, with pool and network."""
    from pvc_core.testkit.guest import guest_image

    if sandbox.plan.timing != TIMING:
        for node in sandbox.nodes():
            sandbox.host(node).stop_service(DAEMON)
        sandbox.up(timing=TIMING)
    made = Cluster(sandbox, eventually)
    (sandbox.shared / "heeding.raw").write_bytes(guest_image())
    (sandbox.shared / "deaf.raw").write_bytes(guest_image(deaf=True))
    if POOL not in {row["name"] for row in made.pvc.json("storage", "pool", "list")}:
        path = sandbox.shared / POOL
        path.mkdir(exist_ok=True)
        made.pvc("storage", "pool", "add", POOL, "-d", "dir", "-p", f"path={path}")
    if NETWORK not in {row["name"] for row in made.pvc.json("network", "list")}:
        made.pvc("network", "add", NETWORK, "-d", "bridge", "-p", "device=guest0")
    yield made
    made.close()


@pytest.fixture(scope="session")
def ceph_cluster(ceph_sandbox: Any, eventually: Callable[..., Any]) -> Iterator[Cluster]:
    """Return a cluster whose pool is on Ceph, with the same names as in ``cluster``."""
    from pvc_core.testkit.guest import guest_image

    made = Cluster(ceph_sandbox, eventually)
    (ceph_sandbox.shared / "heeding.raw").write_bytes(guest_image())
    (ceph_sandbox.shared / "deaf.raw").write_bytes(guest_image(deaf=True))
    if POOL not in {row["name"] for row in made.pvc.json("storage", "pool", "list")}:
        made.pvc("storage", "pool", "add", POOL, "-d", "ceph-rbd", "-p", "pgs=8")
    if NETWORK not in {row["name"] for row in made.pvc.json("network", "list")}:
        made.pvc("network", "add", NETWORK, "-d", "bridge", "-p", "device=guest0")
    yield made
    made.close()


@pytest.fixture
def ceph_guests(ceph_cluster: Cluster, tmp_path: Any, request: pytest.FixtureRequest) -> Iterator[Guests]:
    """Return a maker of guests on Ceph that last as long as the test."""
    made = Guests(ceph_cluster, tmp_path, _prefix(request))
    yield made
    made.remove()


@pytest.fixture(scope="module")
def module_guests(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Guests]:
    """Return a maker of guests that last as long as the module."""
    made = Guests(cluster, tmp_path_factory.mktemp("guests"), _prefix(request))
    yield made
    made.remove()


@pytest.fixture
def guests(cluster: Cluster, tmp_path: Any, request: pytest.FixtureRequest) -> Iterator[Guests]:
    """Return a maker of guests that last as long as the test."""
    made = Guests(cluster, tmp_path, _prefix(request))
    yield made
    made.remove()


@pytest.fixture
def sending() -> Callable[[Any], AbstractContextManager[None]]:
    """``with sending(store)``: it keeps sending without waiting for answers, as a busy daemon with many threads does."""
    from kazoo.protocol.serialization import GetData

    from pvc_core.store.api import SessionState

    @contextmanager
    def sending(store: Any) -> Iterator[None]:
        stop = threading.Event()

        def send() -> None:
            while not stop.wait(0.05):
                if store.state is SessionState.CONNECTED:
                    store._client.send(GetData("/pvc", None))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    return sending


def _prefix(request: pytest.FixtureRequest) -> str:
    return str(request.module.__name__).rpartition(".")[2].removeprefix("test_system_").replace("_", "-")
