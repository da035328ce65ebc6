"""``pvc node network``, on a cluster whose nodes answer from a table."""

import msgspec
import pytest

from pvc_core.cli.plugins import PluginCommand
from pvc_core.client.local import Client
from pvc_core.model.errors import Unavailable
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_node
from pvc_hostnet.manifest import MANIFEST
from pvc_hostnet.report import FloatingAddress, Gateway, NetworkStatus, OwnAddress, Status


def network(name="cluster", **fields):
    given = {
        "device": "bond0.10",
        "exists": True,
        "up": True,
        "carrier": True,
        "mac": "02:00:00:00:00:01",
        "mtu": 9000,
        "addresses": (OwnAddress(address="10.0.0.1/24", present=True),),
    }
    return NetworkStatus(name=name, **(given | fields))


HV1 = Status(
    node="hv1",
    primary=True,
    networks=(
        network(
            floating=(FloatingAddress(address="10.0.0.254", held=True),),
            gateways=(Gateway(address="10.0.0.253", used=True),),
        ),
        network("storage", same_as="cluster"),
    ),
)
HV2 = Status(
    node="hv2",
    primary=False,
    networks=(
        network(
            carrier=False,
            mtu=0,
            exists=False,
            addresses=(OwnAddress(address="10.0.0.2/24", present=False),),
            floating=(FloatingAddress(address="10.0.0.254", held=False),),
            problems=("there is no device bond0.10",),
        ),
    ),
)


@pytest.fixture
def pvc(monkeypatch):
    tree = MemoryTree()
    command = CommandLine(tree, plugins=[PluginCommand("hostnet", spec) for spec in MANIFEST.commands])
    add_node(tree, "hv1")
    add_node(tree, "hv2")
    add_node(tree, "hv3")
    add_node(tree, "hv4", alive=False)
    answers = {"hv1": HV1, "hv2": HV2}

    def ask(_client, query, /, node="", **words):
        assert (query, words) == ("hostnet.status", {})
        if node not in answers:
            raise Unavailable(f"node {node} has no plugin hostnet")
        return msgspec.to_builtins(answers[node])

    monkeypatch.setattr(Client, "ask", ask)
    return command


def test_one_node_as_a_table(pvc):
    ran = pvc("node", "network", "hv1")
    assert ran.status == 0
    header, cluster, storage = ran.out.splitlines()[:3]
    assert header.split() == ["NODE", "NETWORK", "DEVICE", "MTU", "CARRIER", "ADDRESSES", "FLOATING", "PROBLEMS"]
    assert cluster.split() == ["hv1", "cluster", "bond0.10", "9000", "yes", "10.0.0.1/24", "10.0.0.254", "(held)", "-"]
    assert storage.split() == ["hv1", "storage", "bond0.10", "(as", "cluster)", "9000", "yes", "10.0.0.1/24", "-", "-"]


def test_all_nodes_and_those_that_do_not_answer(pvc):
    ran = pvc("node", "network")
    assert ran.status == 0
    assert [line.split()[0] for line in ran.out.splitlines()[1:4]] == ["hv1", "hv1", "hv2"]
    lost = next(line for line in ran.out.splitlines() if line.startswith("hv2"))
    assert all(part in lost for part in (" - ", "NO", "10.0.0.2/24 (MISSING)", "there is no device bond0.10"))
    assert "node hv3: node hv3 has no plugin hostnet" in ran.err
    assert "node hv4 is not alive: left out" in ran.err


def test_json_has_everything(pvc):
    assert msgspec.convert(pvc("node", "network", "hv1", "--format", "json").json(), list[Status]) == [HV1]
    assert msgspec.convert(pvc("--format", "json", "node", "network").json(), list[Status]) == [HV1, HV2]


def test_a_node_that_does_not_answer_is_an_error(pvc):
    ran = pvc("node", "network", "hv3")
    assert (ran.status, ran.out) == (1, "")
    assert "node hv3 has no plugin hostnet" in ran.err
