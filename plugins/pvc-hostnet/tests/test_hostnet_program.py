"""``pvc-hostnet``, and what is left when it, or the daemon, is killed half-way."""

import importlib
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pvc_hostnet.__main__ import main

FILE = """
cluster:
  name: one
  coordinators: [{name: node7, address: 10.0.0.7}]
node:
  name: node7
  address: 10.0.0.7
plugins:
  dir:
  hostnet:
    cluster: {device: eth0, mtu: 1400, addresses: [10.0.0.0/24, "fd00:1::/64"], floating: [10.0.0.254/24], gateways: [10.0.0.1]}
    storage: {same_as: cluster}
"""
ADDRESSES = ["10.0.0.7/24", "fd00:1::7/64"]

KILLED = """
import os, signal, sys
from pvc_hostnet import truth
from pvc_hostnet.__main__ import main
left = int(sys.argv[1])
do = truth._do
def some(*arguments):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    do(*arguments)
truth._do = some
sys.exit(main(["apply", "--config", sys.argv[2]]))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pvcnoded.yml"
    path.write_text(FILE)
    return path


def program(node, *arguments, **environment):
    with node.inside():
        return subprocess.run(
            [sys.executable, "-m", "pvc_hostnet", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            env=os.environ | environment,
        )


@pytest.mark.real
def test_apply_gives_the_node_what_its_file_says_but_no_floating_address(node, file):
    assert program(node, "check", "--config", file).returncode == 1
    done = program(node, "apply", "--config", file)
    assert (done.returncode, done.stdout) == (0, "")
    assert "host-network-changed device=eth0 added=10.0.0.7/24" in done.stderr
    assert node.addresses() == ADDRESSES
    assert (node.link().get_attr("IFLA_MTU"), node.gateways()) == (1400, ["10.0.0.1"])
    again = program(node, "apply", PVC_NODE_CONFIG=str(file))
    assert (again.returncode, again.stderr) == (0, "")
    assert program(node, "check", "--config", file).returncode == 0


@pytest.mark.real
def test_check_changes_nothing_and_says_what_is_wrong(node, file):
    found = program(node, "check", "--config", file)
    assert "pvc-hostnet: network cluster: eth0 is switched off" in found.stderr
    assert "eth0 lacks 10.0.0.7/24" in found.stderr
    assert node.addresses() == []


@pytest.mark.real
def test_a_daemon_adopts_what_the_program_gave_and_takes_it_away_when_the_section_changes(node, file):
    program(node, "apply", "--config", file)
    node.start(cluster={"device": "eth1", "addresses": ["10.0.0.0/24"]})
    assert (node.addresses("eth0"), node.addresses("eth1")) == ([], ["10.0.0.7/24"])


@pytest.mark.real
def test_an_empty_section_takes_everything_away(node, file):
    program(node, "apply", "--config", file)
    file.write_text(FILE.partition("  hostnet:")[0] + "  hostnet:\n")
    assert program(node, "apply", "--config", file).returncode == 0
    assert (node.addresses(), node.gateways()) == ([], [])


@pytest.mark.real
def test_release_removes_what_a_dead_daemon_left(node, file):
    program(node, "apply", "--config", file)
    node.give("10.0.0.254/32")
    released = program(node, "release", "--config", file)
    assert (released.returncode, "10.0.0.254/32" in released.stderr) == (0, True)
    assert node.addresses() == ADDRESSES


@pytest.mark.real
def test_a_device_can_be_waited_for(node, file):
    node.remove("eth0")
    assert program(node, "apply", "--config", file).returncode == 1
    with node.inside():
        running = subprocess.Popen(
            [sys.executable, "-m", "pvc_hostnet", "apply", "--config", str(file), "--wait", "15"],
            stderr=subprocess.PIPE,
        )
    try:
        node.plug("eth0")
        assert running.wait(timeout=15) == 0
    finally:
        running.kill()
        running.communicate()
    assert node.addresses() == ADDRESSES


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plugins: {dir: }", "the plugin hostnet is not listed below plugins"),
        ("plugins: [", "this is not valid YAML"),
        ("plugins: {hostnet: {cluster: {devise: x}}}", "plugins.hostnet.cluster.devise: unknown key"),
        (
            "{node: {name: hv}, plugins: {hostnet: {cluster: {device: eth0, addresses: [10.0.0.0/24]}}}}",
            "the name hv ends with no number",
        ),
    ],
)
def test_a_wrong_file_is_told(node, file, text, said):
    file.write_text(text)
    found = program(node, "apply", "--config", file)
    assert found.returncode == 78
    assert said in found.stderr
    assert str(file) in found.stderr


def test_a_file_that_is_not_there_is_told(node, tmp_path):
    found = program(node, "check", "--config", tmp_path / "no.yml")
    assert (found.returncode, "cannot read the configuration" in found.stderr) == (78, True)


@pytest.mark.real
def test_killed_between_any_two_steps_the_next_run_completes_it_and_knows_its_own(node, file):
    node.give("192.0.2.1/24")
    survived = False
    for steps in range(9):
        node.set("eth0", mtu=1500, state="down")
        with node.inside():
            ended = subprocess.run(
                [sys.executable, "-c", KILLED, str(steps), str(file)], capture_output=True, check=False, timeout=20
            ).returncode
        survived = ended == 0
        assert ended in (0, -signal.SIGKILL)
        node.start(  # another section: all that was given is taken away, and nothing else
            upstream={"device": "eth1"}
        )
        assert (node.addresses(), node.gateways()) == (["192.0.2.1/24"], [])
        if survived:
            break
    assert survived
    assert steps == 5  # MTU, on, two addresses, route
    with node.inside():
        subprocess.run([sys.executable, "-c", KILLED, "3", str(file)], capture_output=True, check=False, timeout=20)
    assert program(node, "apply", "--config", file).returncode == 0
    assert node.addresses() == sorted([*ADDRESSES, "192.0.2.1/24"])


def test_the_program_has_its_name():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, _, attribute = project["scripts"]["pvc-hostnet"].partition(":")
    assert getattr(importlib.import_module(module), attribute) is main
