"""`pvc` run inside a test, on a state tree in memory: for commands of core and of plugins.

tree = MemoryTree()
pvc = CommandLine(tree)
add_node(tree, "node1")
assert pvc("node", "list").status == 0
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from click.testing import CliRunner

from pvc_core.cli.main import build
from pvc_core.cli.plugins import PluginCommand
from pvc_core.cli.session import Session
from pvc_core.client.local import Client
from pvc_core.config.schema import Service
from pvc_core.model.errors import Unavailable
from pvc_core.model.network import NetworkSpec
from pvc_core.model.node import Lease, LeaseGeneration, Memory, NodeSpec, NodeStatus, PluginStatus, Role
from pvc_core.store import keys
from pvc_core.store.api import Create, Store
from pvc_core.store.documents import create
from pvc_core.store.memory import MemoryTree
from pvc_core.store.schema import initialise


class Ran(NamedTuple):
    """How a call of `pvc` ended, and what it printed."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """Return standard output decoded as JSON."""
        return msgspec.json.decode(self.out)


class CommandLine:
    """Runs `pvc` on a state tree in memory, which is made ready when it is empty.

    ``plugins`` are the commands of plugins that the tree of commands gets, ``service`` says how the nodes' service
    is reached; with ``tree`` None the state store does not answer.
    """

    def __init__(
        self, tree: MemoryTree | None, *, plugins: Sequence[PluginCommand] = (), service: Service | None = None
    ) -> None:
        self._tree = tree
        self._plugins = plugins
        self._service = service
        if tree is not None:
            store = tree.connect()
            initialise(store)
            store.close()

    def __call__(self, *args: str, input: str | None = None, interactive: bool = False) -> Ran:
        """Run `pvc ARGS`; ``input`` is standard input, ``interactive`` says whether a person may be asked."""
        session = Session(connect=self._connect, interactive=interactive)
        result = CliRunner().invoke(build(self._plugins), args, input=input, obj=session)
        return Ran(result.exit_code, result.stdout, result.stderr)

    def _connect(self, config: str | None, /, *, timeout_s: float | None = None) -> Client:
        del config, timeout_s
        return Client(self._open, service=self._service)

    def _open(self) -> Store:
        if self._tree is None:
            raise Unavailable("no state store answered within 5 s (asked 10.0.0.1:2181)")
        return self._tree.connect()


def add_node(
    tree: MemoryTree,
    name: str,
    *,
    role: Role = "coordinator",
    memory_mib: int = 8192,
    cpus: int = 8,
    capabilities: Sequence[str] = ("storage:dir", "network:bridge"),
    alive: bool = True,
    address: str = "192.0.2.1",
    service_port: int = 0,
) -> None:
    """Put a node that runs and takes VMs into the tree; not ``alive``: its lease is gone."""
    store = tree.connect()
    plugin = PluginStatus(name="testkit", state="healthy", version="1.0", capabilities=tuple(capabilities))
    status = NodeStatus(
        id=name,
        role=role,
        daemon="running",
        lease=1,
        address=address,
        service_port=service_port,
        cpus=cpus,
        memory=Memory(total_mib=memory_mib, free_mib=memory_mib),
        accelerators=("kvm", "tcg"),
        machine_types=("q35", "pc"),
        plugins=(plugin,),
    )
    store.commit(
        create(keys.node_spec(name), NodeSpec(id=name, role=role)),
        create(keys.node_status(name), status),
        create(keys.generation(name), LeaseGeneration(node=name, generation=1)),
        *([create(keys.lease(name), Lease(node=name, generation=1))] if alive else []),
    )


def add_network(tree: MemoryTree, name: str, *, driver: str = "bridge") -> None:
    """Put a network into the tree; its id is made of its name."""
    id_ = f"00000000-0000-4000-8000-{name.encode().hex()[:12]:0>12}"
    tree.connect().commit(
        create(keys.network_spec(id_), NetworkSpec(id=id_, name=name, driver=driver)),
        Create(keys.name("network", name), id_.encode()),
        Create(keys.ref("network", id_), b""),
    )
