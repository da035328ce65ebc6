"""Requests that cannot be carried out: one line that says why, exit status 1 or 2, and nothing is changed."""

import gzip
import json
import re
import socket

import pytest
import yaml

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


def state(cluster):
    """Return everything that commands can change."""
    return {
        "vms": [cluster.info(name) | {"usage": None} for name in sorted(cluster.names())],
        "networks": cluster.pvc.json("network", "list"),
        "volumes": cluster.pvc.json("storage", "volume", "list"),
        "nodes": [(row["name"], row["scheduling"]) for row in cluster.pvc.json("node", "list")],
        "tasks": len(cluster.pvc.json("task", "list")),
    }


@pytest.fixture(scope="module")
def vm(cluster, module_guests):
    return module_guests.boot_sector(node="hv1", start=False)


FILES = {
    "not-yaml": "name: [",
    "not-a-vm": "- 1\n- 2\n",
    "empty": "",
    "unknown-key": "name: new\nmemory: 1G\nmemroy: 1G\n",
    "wrong-type": "name: new\nmemory: 1G\nvcpus: many\n",
    "bad-name": "name: 'a b'\nmemory: 1G\n",
    "not-xml": "<domain><name>x</name>",
    "no-network": "name: new\nmemory: 16M\nnics: [{network: nowhere}]\n",
    "no-pool": "name: new\nmemory: 16M\ndisks: [{pool: nowhere, volume: x}]\n",
    "no-volume": "name: new\nmemory: 16M\ndisks: [{pool: systemtest, volume: nowhere}]\n",
    "no-node": "name: new\nmemory: 16M\nnode: hv9\n",
}
SAYS = {
    "not-yaml": "not-yaml.yml:",
    "unknown-key": "did you mean 'memory'",
    "wrong-type": "vcpus",
    "no-network": "'nowhere'",
    "no-pool": "'nowhere'",
    "no-volume": "nowhere",
    "no-node": "'hv9'",
}


def test_definitions_that_are_wrong_define_nothing(cluster, vm, tmp_path):
    before = state(cluster)
    for name, text in FILES.items():
        path = tmp_path / f"{name}.yml"
        path.write_text(text)
        _, message = cluster.refused("vm", "define", str(path))
        assert SAYS.get(name, "") in message, (name, message)
    (tmp_path / "taken.yml").write_text(f"name: {vm}\nmemory: 16M\n")
    assert vm in cluster.refused("vm", "define", str(tmp_path / "taken.yml"))[1]
    assert state(cluster) == before


def test_memory_larger_than_any_node_is_refused_and_the_largest_is_named(cluster, vm, tmp_path):
    before = state(cluster)
    (tmp_path / "big.yml").write_text("name: big\nmemory: 900G\n")
    _, message = cluster.refused("vm", "define", str(tmp_path / "big.yml"), "--start")
    assert re.search(r"'big' wants 900 GiB of memory; the largest is hv\d with [\d.]+ GiB", message)
    _, message = cluster.refused("vm", "modify", vm, "--set", "memory=900G")
    assert "900 GiB" in message
    assert state(cluster) == before


REQUESTS = [
    ("vm", "start", "nobody"),
    ("vm", "info", "nobody"),
    ("vm", "log", "nobody"),
    ("vm", "move", "nobody", "--node", "hv1"),
    ("vm", "remove", "nobody", "--yes"),
    ("vm", "start", "{vm}", "--node", "hv9"),
    ("vm", "modify", "{vm}", "--set", "memory=lots"),
    ("vm", "modify", "{vm}", "--set", "colour=red"),
    ("vm", "modify", "{vm}", "--add-nic", "nowhere"),
    ("vm", "modify", "{vm}", "--add-disk", "systemtest/nowhere"),
    ("vm", "rename", "{vm}", "a/b"),
    ("vm", "unmigrate", "{vm}"),
    ("vm", "define", "/nowhere/vm.yml"),
    ("vm", "list", "--state", "sleeping"),
    ("vm", "list", "("),
    ("vm", "jump", "{vm}"),
    ("vm", "console", "{vm}"),
    ("node", "flush", "hv9"),
    ("node", "primary", "hv9"),
    ("node", "remove", "hv1", "--yes"),
    ("network", "add", "other", "--driver", "nothing"),
    ("network", "remove", "nowhere", "--yes"),
    ("storage", "volume", "add", "systemtest/x", "-5G"),
    ("storage", "volume", "add", "nowhere/x", "1M"),
    ("storage", "volume", "remove", "systemtest/{vm}", "--yes"),
    ("storage", "volume", "resize", "systemtest/{vm}", "1K"),
    ("storage", "pool", "remove", "systemtest", "--yes"),
    ("storage", "snapshot", "rollback", "systemtest/{vm}", "never", "--yes"),
    ("task", "info", "nothing"),
]


def test_requests_that_are_wrong_change_nothing(cluster, vm):
    before = state(cluster)
    for request in REQUESTS:
        arguments = [word.format(vm=vm) for word in request]
        done = cluster.pvc.run(*arguments)
        assert done.returncode in (1, 2), (arguments, done)
        said = done.stderr.strip().splitlines()
        assert "Traceback" not in done.stderr
        # click puts two lines of usage before the one that counts when a command was written wrong.
        assert len([line for line in said if not line.startswith(("Usage:", "Try ")) and line]) == 1, (arguments, said)
    assert state(cluster) == before


def test_store_that_does_not_answer_is_named_in_one_line(cluster, tmp_path):
    config = yaml.safe_load(cluster.sandbox.client_config.read_text())
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    config["cluster"]["zookeeper"] = {"port": port}
    (tmp_path / "pvc.yml").write_text(yaml.safe_dump(config))
    from pvc_sandbox.client import PvcCommand

    for arguments in (("vm", "list"), ("node", "flush", "hv1"), ("cluster", "status")):
        done = PvcCommand(tmp_path / "pvc.yml").run(*arguments, deadline_s=30)
        assert done.returncode == 1, done
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert f":{port}" in done.stderr


def test_backup_is_not_restored_over_a_live_cluster(cluster, vm, tmp_path):
    file = tmp_path / "state"
    cluster.pvc("cluster", "backup", str(file))
    data = file.read_bytes()
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    assert vm.encode() in text
    assert file.stat().st_mode & 0o777 == 0o600
    assert "exists" in cluster.refused("cluster", "backup", str(file))[1]
    before = state(cluster)
    status, message = cluster.refused("cluster", "restore", str(file), "--yes")
    assert status == 1
    assert "force" in message
    (tmp_path / "other").write_text(json.dumps({"a": 1}))
    assert str(tmp_path / "other") in cluster.refused("cluster", "restore", str(tmp_path / "other"), "--yes")[1]
    assert state(cluster) == before
