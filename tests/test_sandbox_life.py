"""A sandbox from its first `up` to `down`, killed in between."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pvc_sandbox.errors import SandboxError
from pvc_sandbox.sandbox import Sandbox
from pvc_sandbox.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

UP = (
    "import sys; from pvc_sandbox.sandbox import Sandbox; Sandbox(sys.argv[1]).up(nodes=int(sys.argv[2]), report=print)"
)
DOWN = "import sys; from pvc_sandbox.sandbox import Sandbox; Sandbox(sys.argv[1]).down()"


@pytest.fixture
def name():
    made = f"life-{os.getpid()}"
    yield made
    Sandbox(made).down()
    assert leftovers(made) == []


def leftovers(name):
    """Everything on this machine that has to do with the sandbox."""
    found = [
        str(path) for root in ("/run/pvc-sandbox", "/var/lib/pvc-sandbox", "/run/netns") for path in _named(root, name)
    ]
    found += [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"/{name}/" in command:
                found.append(command)
    return found


def _named(root, name):
    return [path for path in Path(root).glob("*") if name in path.name]


def start(program, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def kill_after(process, delay_s):
    """Kill a command, and what it runs itself, like a terminal that is closed in its midst."""
    with process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_up_killed_at_any_moment_goes_on_where_it_stopped(name):
    for delay_s in (0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5):
        kill_after(start(UP, name, "3"), delay_s)
    sandbox = Sandbox(name)
    sandbox.up(nodes=3)
    assert [(node.power, node.link) for node in sandbox.status().nodes] == [("on", "up")] * 3
    assert {row["name"]: row["alive"] for row in sandbox.pvc.rows("node", "list")} == {
        "hv1": True, "hv2": True, "hv3": True,
    }  # fmt: skip


@pytest.mark.parametrize("delay_s", [0.15, 0.25, 0.35, 0.45, 0.6, 0.9])
def test_up_killed_at_any_moment_is_removed_without_a_trace(name, delay_s):
    kill_after(start(UP, name, "3"), delay_s)
    Sandbox(name).down()
    # A host's launcher that was at work ends by itself, and what it began was waited for.
    assert leftovers(name) == []


def test_down_killed_at_any_moment_goes_on_where_it_stopped(name):
    for delay_s in (0.15, 0.2, 0.25, 0.3):
        Sandbox(name).up(nodes=2)
        kill_after(start(DOWN, name), delay_s)
        Sandbox(name).down()
        assert leftovers(name) == []


def test_two_at_once_make_one_cluster(name):
    first, second = start(UP, name, "2"), start(UP, name, "2")
    assert [process.communicate()[1] for process in (first, second)] == [b"", b""]
    assert [node.power for node in Sandbox(name).status().nodes] == ["on", "on"]


def test_repeated_up_changes_nothing_and_is_quick(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=1)
    before = sandbox.status()
    begun = time.monotonic()
    sandbox.up()
    assert time.monotonic() - begun < 5
    assert sandbox.status() == before


def test_cluster_survives_the_power_cut_of_all_nodes(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=3)
    for node in sandbox.nodes():
        sandbox.power_cut(node)
    assert [node.power for node in sandbox.status().nodes] == ["off"] * 3
    with pytest.raises(SandboxError):
        sandbox.pvc("node", "list", deadline_s=120)
    sandbox.up()
    assert len(sandbox.pvc.rows("node", "list")) == 3


def test_what_was_killed_of_bmcs_and_watchdogs_is_there_again(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=1, watchdog=True, watchdog_timeout_s=60)
    before = sandbox.status()
    power = sandbox.host("hv1").power
    kill_all(sandbox, "ipmi_sim")
    kill_all(sandbox, "pvc_sandbox.watchdog")
    wait_until("the BMC is gone", lambda: sandbox.status().nodes[0].bmc == "off", deadline_s=5)
    sandbox.up()
    assert sandbox.status() == before
    assert sandbox.host("hv1").power == power
    assert pids(sandbox, "pvc_sandbox.watchdog")
    kill_all(sandbox, "ipmi_sim")
    kill_all(sandbox, "pvc_sandbox.watchdog")


def pids(sandbox, word):
    """Processes of a sandbox whose command line has a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().decode(errors="replace")
            if word in command and f"/{sandbox.name}" in command:
                found.append(int(path.parent.name))
    return found


def kill_all(sandbox, word):
    found = pids(sandbox, word)
    assert found
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def test_bmcs_are_taken_away_and_given_back(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=1, bmc=False)
    assert sandbox.status().nodes[0].bmc == ""
    with pytest.raises(SandboxError, match="have no BMC"):
        sandbox.bmc("hv1")
    for bmc in (True, False):
        sandbox.up(bmc=bmc)
        assert sandbox.status().nodes[0].bmc == ("works" if bmc else "")
        (levels,) = [row["levels"] for row in sandbox.pvc.json("fence", "level", "list")]
        assert len(levels) == int(bmc)
        plugins = {row["plugin"]["name"] for row in sandbox.pvc.json("plugin", "list", "--all-nodes")}
        assert ("fence-ipmi" in plugins) == bmc
    assert not pids(sandbox, "ipmi_sim")


def test_node_is_switched_by_command_through_its_bmc(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=2)
    (level,) = [row["levels"] for row in sandbox.pvc.json("fence", "level", "list") if row["node"] == "hv2"]
    assert level[0]["devices"][0]["parameters"]["address"] == sandbox.bmc("hv2").address
    sandbox.host("hv2").stop_service("pvcnoded")  # one that is at work is not switched off
    sandbox.pvc("fence", "off", "hv2", "--yes")
    assert sandbox.status().nodes[1].power == "off"
    sandbox.pvc("fence", "on", "hv2")
    # Its BMC reads "on" before its first process answers: until then it is as good as frozen.
    wait_until("it is on", lambda: sandbox.status().nodes[1].power == "on", deadline_s=30)
    sandbox.wait_ready()


def test_node_and_its_bmc_lose_power_together_and_get_it_back(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=1)
    sandbox.power_cut("hv1", bmc=True)
    assert (sandbox.status().nodes[0].power, sandbox.status().nodes[0].bmc) == ("off", "off")
    sandbox.power_on("hv1")
    assert (sandbox.status().nodes[0].power, sandbox.status().nodes[0].bmc) == ("on", "works")
    sandbox.wait_ready()


def test_hypervisor_is_added_to_a_cluster_that_runs(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=1)
    sandbox.up(nodes=2)
    roles = {row["name"]: row["role"] for row in sandbox.pvc.rows("node", "list")}
    assert roles == {"hv1": "coordinator", "hv2": "hypervisor"}
    with pytest.raises(SandboxError, match="has 2 nodes already, so it cannot have 1"):
        sandbox.up(nodes=1)


def test_daemon_with_a_wrong_configuration_is_told_at_once(name):
    with pytest.raises(SandboxError, match="the daemon ended for good"):
        Sandbox(name).up(nodes=1, plugins={"no-such-plugin-section": {"x": 1}}, timing={"lease": -1})


def test_node_sees_its_own_machine_only(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=2)
    environment = subprocess.run(
        sandbox.shell_command("hv2", ["sh", "-c", "pvc node list; hostname"]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "hv1" in environment.stdout
    assert environment.stdout.endswith("hv2\n")
    assert "qemu" not in sandbox.exec("hv2", ["ps", "-e"]).stdout


def test_lost_node_is_seen_by_the_cluster_and_comes_back(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=3, timing={"lease": 4}, bmc=False)
    sandbox.cut_link("hv3")

    def daemon():
        return {row["name"]: row["daemon"] for row in sandbox.pvc.rows("node", "list")}.get("hv3")

    wait_until("hv3 is lost", lambda: daemon() == "lost", deadline_s=60)
    sandbox.heal_link("hv3")
    wait_until("hv3 is back", lambda: daemon() == "running", deadline_s=60)
