"""A cluster without a node's daemon, for tests of the plugin's commands: the test says what nodes answer."""

import uuid

from pvc_core.cli.plugins import PluginCommand
from pvc_core.client.local import Client
from pvc_core.model.base import Condition
from pvc_core.model.network import NetworkSpec, NetworkStatus
from pvc_core.store import keys
from pvc_core.store.api import Create
from pvc_core.store.documents import create, read
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_network, add_node
from pvc_vxlan.manifest import MANIFEST


class Cluster:
    """Node ``hv1``, the managed network ``lan`` and the bridged one ``wire``; runs ``pvc network <command> ...``."""

    def __init__(self, monkeypatch, command: str, **parameters):
        self.tree = MemoryTree()
        self.store = self.tree.connect()
        (spec,) = [each for each in MANIFEST.commands if each.name == command]
        self._pvc = CommandLine(self.tree, plugins=[PluginCommand("vxlan", spec)])
        self._command = command
        add_node(self.tree, "hv1", capabilities=("network:vxlan", "network:bridge"))
        self.id = str(uuid.uuid4())
        lan = NetworkSpec(id=self.id, name="lan", driver="vxlan", parameters={"vni": 7, **parameters})
        self.store.commit(
            create(keys.network_spec(self.id), lan),
            Create(keys.name("network", "lan"), self.id.encode()),
            Create(keys.ref("network", self.id), b""),
        )
        add_network(self.tree, "wire")
        self.primary = "hv1"
        self.answers = {}
        """Query -> its answer, or the error that is raised."""
        self.asked = []
        self.before_modify = []
        self.problem = ""
        """What the node finds wrong with the network after each change."""
        self.takes_over = True
        """The node takes changes over at once."""
        real = Client.call

        def call(client, operation, /, **words):
            if operation == "primary.info":
                return type("View", (), {"node": self.primary})
            if operation == "network.modify" and self.before_modify:
                self.before_modify.pop()(lambda **more: real(client, "network.modify", network="lan", **more))
            answer = real(client, operation, **words)
            if operation == "network.modify" and self.takes_over:
                self._take_over()
            return answer

        monkeypatch.setattr(Client, "call", call)
        monkeypatch.setattr(Client, "ask", lambda _client, query, /, node="", **words: self._ask(query, node, words))

    def __call__(self, *words):
        return self._pvc("network", self._command, *words)

    def network(self):
        return self._pvc("network", "info", "lan", "-f", "json").json()["view"]

    def _ask(self, query, node, arguments):
        self.asked.append((query, node, arguments))
        answer = self.answers[query]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _take_over(self):
        spec = read(self.store, keys.network_spec(self.id)).value
        key = keys.network_status(self.id, "hv1")
        wrong = [Condition(type="Ready", ok=False, message=self.problem)] if self.problem else []
        status = NetworkStatus(
            id=f"{self.id}@hv1", node="hv1", observed_generation=spec.generation, device="b", conditions=tuple(wrong)
        )
        before = read(self.store, key)
        self.store.commit(create(key, status) if before is None else before.put(status))
