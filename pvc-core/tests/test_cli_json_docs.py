"""docs/cli-json.md is true: documented fields exist, what commands print is documented."""

import importlib
import re
from pathlib import Path

import msgspec
import pytest

from pvc_core.cli.output import plain
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_network, add_node

DOCUMENT = Path(__file__).parents[2] / "docs" / "cli-json.md"

HOME = {
    "VmView": "ops.vm_views",
    "VmInfo": "ops.vm_views",
    "MigrationResult": "model.vm",
    "GuestUsage": "model.node",
    "VmModified": "ops.vm_change",
    "FieldChange": "ops.vm_change",
    "Disk": "model.disk",
    "DiskLimits": "model.disk",
    "Nic": "model.vm",
    "NicLimits": "model.vm",
    "NodeRow": "ops.node",
    "NodeInfo": "ops.node",
    "Flush": "ops.node_service",
    "PrimaryView": "ops.node_service",
    "NetworkView": "ops.network",
    "NetworkInfo": "ops.network",
    "NetworkStatus": "model.network",
    "NodeFinding": "cli.commands.network_check",
    "PoolView": "ops.pool",
    "PoolUsage": "model.storage",
    "VolumeView": "ops.volume",
    "Snapshot": "model.storage",
    "VmSnapshotView": "ops.vm_snapshot_views",
    "VmSnapshotInfo": "ops.vm_snapshot_views",
    "SnapshotDiskView": "ops.vm_snapshot_views",
    "Task": "model.task",
    "NodeFencing": "ops.fence_status",
    "DeviceView": "ops.fence_status",
    "DeviceCheck": "ops.fence_status",
    "Outlook": "plan.fence_outlook",
    "Prospect": "plan.fence_outlook",
    "FenceRow": "ops.fence_record",
    "FenceInfo": "ops.fence_record",
    "FenceConfirmed": "ops.fence_confirm",
    "Proof": "model.fence",
    "NodeLevels": "ops.fence_level",
    "FenceLevelAdded": "ops.fence_level",
    "FenceLevel": "model.fence",
    "FenceDevice": "model.fence",
    "ClusterStatus": "ops.cluster",
    "Capacity": "plan.capacity",
    "Cluster": "model.cluster",
    "BackupView": "ops.backup",
    "PluginRow": "cli.commands.plugin",
    "PluginOnNode": "cli.commands.plugin",
    "PluginStatus": "model.node",
    "PluginDetail": "cli.commands.plugin",
    "SettingRow": "cli.commands.plugin",
    "CommandSpec": "plugin.manifest",
    "Finding": "runtime.doctor",
    "ScenarioResult": "testkit.scenario.result",
    "ScenarioRun": "testkit.scenario.result",
    "Verdict": "testkit.scenario.result",
    "TimelineEntry": "testkit.scenario.result",
    "Condition": "model.base",
}


def documented() -> dict[str, list[str]]:
    """Return type -> its documented fields."""
    types = DOCUMENT.read_text(encoding="utf-8").partition("\n## Types\n")[2]
    sections = re.split(r"^### ", types, flags=re.MULTILINE)[1:]
    return {text.split("\n", 1)[0]: re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) for text in sections}


def test_every_type_that_is_printed_is_documented() -> None:
    assert list(documented()) == list(HOME)
    links = set(re.findall(r"\(#(\w+)\)", DOCUMENT.read_text(encoding="utf-8")))
    assert links <= {name.lower() for name in HOME}


@pytest.mark.parametrize("name", HOME)
def test_the_documented_fields_are_those_of_the_type(name: str) -> None:
    type_ = getattr(importlib.import_module(f"pvc_core.{HOME[name]}"), name)
    assert documented()[name] == [field.encode_name for field in msgspec.structs.fields(type_)]


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("vm", "list"), "VmView"),
        (("vm", "info", "web1"), "VmInfo"),
        (("node", "list"), "NodeRow"),
        (("node", "info", "node1"), "NodeInfo"),
        (("network", "list"), "NetworkView"),
        (("network", "info", "lan"), "NetworkInfo"),
        (("cluster", "status"), "ClusterStatus"),
        (("cluster", "settings"), "Cluster"),
        (("fence", "status"), "NodeFencing"),
        (("fence", "status", "node1"), "NodeFencing"),
        (("fence", "level", "list"), "NodeLevels"),
        (("plugin", "list", "--all-nodes"), "PluginOnNode"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_command_prints_every_documented_field(args: tuple[str, ...], name: str) -> None:
    tree = MemoryTree()
    pvc = CommandLine(tree)
    add_node(tree, "node1")
    add_network(tree, "lan")
    assert pvc("vm", "define", "-", input="name: web1\nmemory: 1G\nnics: [{network: lan}]\n").status == 0
    found = pvc(*args, "--format", "json").json()
    record = found[0] if isinstance(found, list) else found
    assert list(record) == documented()[name]


def test_no_field_is_lost_because_it_has_its_default() -> None:
    """Documents leave defaults out where they are stored; what is printed must not."""
    task = importlib.import_module("pvc_core.model.task").Task(id="1", kind="x", node="n")
    assert list(plain(task)) == documented()["Task"]
