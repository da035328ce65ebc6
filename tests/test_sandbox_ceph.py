"""A sandbox with Ceph in its nodes: made, broken, mended; killed while it is made."""

import configparser
import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from pvc_sandbox import ceph as ceph_of_nodes
from pvc_sandbox import ceph_admin
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.sandbox import Sandbox
from pvc_sandbox.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.ceph, pytest.mark.timeout(300)]

UP = """
import sys
from pvc_sandbox.sandbox import Sandbox
Sandbox(sys.argv[1]).up(nodes=3, storage="ceph", report=lambda line: print(line, flush=True))
"""


def ceph(sandbox, *words, node="hv1"):
    """Return what ``ceph`` says on a node, where it has no options."""
    command = sandbox.shell_command(node, ["ceph", "--format", "json", *words])
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def osds_up(sandbox, node="hv1"):
    return {osd["osd"] for osd in ceph(sandbox, "osd", "dump", node=node)["osds"] if osd["up"]}


def group_states(sandbox, pool, node="hv1"):
    """Return the states of a pool's placement groups."""
    found = ceph(sandbox, "pg", "ls-by-pool", pool, node=node)["pg_stats"]
    return {group["state"] for group in found}


def write(sandbox, node, pool, text):
    """Write an object, in less time than a client would wait for ever."""
    words = ["rados", "--pool", pool, "put", "note", "-"]
    done = sandbox.host(node).exec(words, stdin=text.encode(), deadline_s=30)
    assert done.returncode == 0, done.stderr


def read(sandbox, node, pool):
    done = sandbox.exec(node, ["rados", "--pool", pool, "get", "note", "-"], deadline_s=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def service(sandbox, node, name):
    return sandbox.host(node).services()[name]


@pytest.fixture(scope="module")
def pool(ceph_sandbox):
    name = f"test-{uuid.uuid4().hex[:6]}"
    ceph_sandbox.exec("hv1", ["ceph", "osd", "pool", "create", name]).check()
    ceph_sandbox.exec("hv1", ["ceph", "osd", "pool", "application", "enable", name, "rbd"]).check()
    yield name
    ceph_sandbox.exec("hv1", ["ceph", "osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it"]).check()


@pytest.fixture
def sandbox(ceph_sandbox, view_of):
    """Every test leaves all nodes on and in service, and Ceph whole."""
    yield ceph_sandbox
    ceph_sandbox.up()
    view_of(ceph_sandbox).bring_into_service(*ceph_sandbox.nodes())


def test_ceph_is_whole_and_each_node_has_its_part(sandbox, eventually):
    eventually("it is whole", lambda: ceph(sandbox, "status")["health"]["status"] == "HEALTH_OK")
    assert sorted(ceph(sandbox, "quorum_status")["quorum_names"]) == ["hv1", "hv2", "hv3"]
    tree = {entry["name"]: entry for entry in ceph(sandbox, "osd", "tree", node="hv3")["nodes"]}
    assert {name: tree[name]["children"] for name in ("hv1", "hv2", "hv3")} == {"hv1": [0], "hv2": [1], "hv3": [2]}
    assert {tree[name]["type"] for name in ("hv1", "hv2", "hv3")} == {"host"}
    eventually("two managers stand by", lambda: len(ceph(sandbox, "mgr", "dump")["standbys"]) == 2)
    services = {node.name: {state.name for state in node.services if state.ready} for node in sandbox.status().nodes}
    assert services["hv2"] >= {"ceph-mon@hv2", "ceph-mgr@hv2", "ceph-osd@1"}
    assert sandbox.logs("hv2")["ceph-osd@1"].stat().st_size


def test_pool_has_three_copies_on_three_hosts(sandbox, pool):
    (found,) = [row for row in ceph(sandbox, "osd", "dump")["pools"] if row["pool_name"] == pool]
    assert (found["size"], found["min_size"]) == (3, 2)
    rule = ceph(sandbox, "osd", "crush", "rule", "dump")[found["crush_rule"]]
    assert [step["type"] for step in rule["steps"] if "type" in step] == ["host"]


def test_without_a_key_nothing_is_told(sandbox):
    done = sandbox.exec("hv1", ["ceph", "--keyring", "/dev/null", "--connect-timeout", "5", "status"])
    assert done.returncode != 0


def test_second_disk_is_empty(sandbox):
    found = sandbox.exec("hv1", ["ceph-bluestore-tool", "show-label", "--dev", "/dev/pvc-disk1"]).check()
    assert '"whoami": "0"' in found.stdout
    assert sandbox.exec("hv1", ["ceph-bluestore-tool", "show-label", "--dev", "/dev/pvc-disk2"]).returncode != 0
    assert sandbox.exec("hv1", ["cmp", "-n", "1048576", "/dev/pvc-disk2", "/dev/zero"]).returncode == 0


def test_node_that_loses_power_takes_its_osd_along_and_brings_it_back(sandbox, pool, eventually, view_of):
    write(sandbox, "hv1", pool, "before")
    sandbox.power_cut("hv3")
    eventually("its OSD counts as down", lambda: osds_up(sandbox) == {0, 1}, within_s=30)
    write(sandbox, "hv2", pool, "meanwhile")
    eventually(
        "its absence is known",
        lambda: all({"active", "undersized"} <= {*state.split("+")} for state in group_states(sandbox, pool)),
        within_s=60,
    )
    # Before that it might be switched off again at once.
    eventually("it is fenced", lambda: view_of(sandbox).fence_stage("hv3") == "recovered")
    sandbox.power_on("hv3")
    eventually("its OSD is up", lambda: osds_up(sandbox) == {0, 1, 2}, within_s=60)
    eventually("all copies are there", lambda: group_states(sandbox, pool) == {"active+clean"}, within_s=60)
    assert read(sandbox, "hv3", pool) == "meanwhile"


def test_osd_of_a_node_that_was_switched_on_again_is_not_taken_for_the_one_before(sandbox, eventually):
    def addresses():
        return {each["osd"]: each["public_addr"] for each in ceph(sandbox, "osd", "dump")["osds"]}

    before = addresses()
    sandbox.power_cut("hv3")
    sandbox.power_on("hv3")
    eventually("its OSD is up", lambda: addresses()[2] != before[2] and osds_up(sandbox) == {0, 1, 2}, within_s=60)


def test_node_without_a_link_takes_its_osd_along(sandbox, pool, eventually):
    write(sandbox, "hv1", pool, "before")
    sandbox.cut_link("hv1")
    eventually("its OSD counts as down", lambda: osds_up(sandbox, node="hv2") == {1, 2}, within_s=30)
    write(sandbox, "hv2", pool, "meanwhile")
    sandbox.up()
    assert read(sandbox, "hv1", pool) == "meanwhile"


def test_all_nodes_lose_power_and_nothing_is_lost(sandbox, pool):
    write(sandbox, "hv1", pool, "kept")
    for node in sandbox.nodes():
        sandbox.power_cut(node)
    sandbox.up()
    assert group_states(sandbox, pool) == {"active+clean"}
    assert read(sandbox, "hv2", pool) == "kept"


def test_osd_is_stopped_and_taken_away_by_its_unit(sandbox, eventually):
    def systemctl(*words):
        done = subprocess.run(sandbox.shell_command("hv2", ["systemctl", *words]), capture_output=True, check=False)
        return done.returncode

    assert systemctl("is-active", "ceph-osd@1") == 0
    assert systemctl("stop", "ceph-osd@1") == 0
    assert systemctl("is-active", "ceph-osd@1") == 3
    eventually("it counts as down", lambda: osds_up(sandbox) == {0, 2}, within_s=30)
    assert systemctl("disable", "ceph-osd@1") == 0
    sandbox.power_cut("hv2")
    sandbox.power_on("hv2")
    sandbox.up()  # it waits for no OSD that was taken away, and does not bring it back
    assert systemctl("is-active", "ceph-osd@1") == 3
    assert osds_up(sandbox) == {0, 2}
    assert systemctl("enable", "ceph-osd@1") == systemctl("start", "ceph-osd@1") == 0
    eventually("it is up", lambda: osds_up(sandbox) == {0, 1, 2}, within_s=30)


def test_osd_that_dies_is_started_again(sandbox, eventually):
    before = service(sandbox, "hv1", "ceph-osd@0").starts
    sandbox.host("hv1").signal_service("ceph-osd@0", signal.SIGKILL)
    eventually("it runs again", lambda: service(sandbox, "hv1", "ceph-osd@0").starts > before, within_s=30)


def test_every_option_of_the_configuration_is_one_that_ceph_knows(sandbox):
    """Ceph says nothing of options that it does not know."""
    parser = configparser.ConfigParser(delimiters="=")
    parser.read_string(sandbox.exec("hv1", ["cat", "/etc/ceph/ceph.conf"]).stdout)
    given = {name.replace(" ", "_") for section in parser.sections() for name in parser[section]}
    assert len(given) > 30
    known = json.loads(sandbox.exec("hv1", ["ceph", "daemon", "osd.0", "config", "show"]).check().stdout)
    assert given <= set(known)


def test_daemon_finds_its_programs(sandbox):
    """PVC's own daemon starts and stops OSDs by ``systemctl``."""
    (pid,) = sandbox.exec("hv1", ["pgrep", "-o", "-f", "pvc_core.node.main"]).stdout.split()
    words = sandbox.exec("hv1", ["cat", f"/proc/{pid}/environ"]).stdout.split("\0")
    (path,) = [word.removeprefix("PATH=") for word in words if word.startswith("PATH=")]
    found = sandbox.exec("hv1", ["env", f"PATH={path}", "sh", "-c", "command -v systemctl"]).stdout.strip()
    assert found == f"{sandbox.host('hv1').state}/bin/systemctl"


def ask(sandbox, request, conf=None):
    """Ask the monitors as ``up`` does, for 3 s."""
    layout = sandbox.layout
    path = conf or ceph_of_nodes.client_conf(layout)
    return ceph_admin.ask(path, layout.switch, request, ceph_admin.Settled, deadline_s=3)


def test_osd_that_does_not_come_up_is_named(sandbox):
    with pytest.raises(SandboxError, match=r"Ceph: it serves: not within 3 s; not up: osd\.99"):
        ask(sandbox, ceph_admin.Wait((0, 99)))


def test_command_that_monitors_refuse_is_told_with_their_reason(sandbox):
    with pytest.raises(SandboxError, match="Ceph: config set: unrecognized config option 'no_such_option'"):
        ask(sandbox, ceph_admin.Register((), {"no_such_option": "1"}))


def test_monitors_that_do_not_answer_are_told(sandbox, tmp_path):
    conf = tmp_path / "ceph.conf"
    known = ceph_of_nodes.client_conf(sandbox.layout).read_text()
    nobody = sandbox.layout.cluster_address(200)
    conf.write_text("\n".join(f"mon host = {nobody}" if "mon host" in line else line for line in known.splitlines()))
    with pytest.raises(SandboxError, match="Ceph: its monitors do not answer"):
        ask(sandbox, ceph_admin.Wait((0,)), conf)


# --- sandboxes of their own -----------------------------------------------------------------------------


@pytest.fixture
def name():
    made = f"ceph-{os.getpid()}"
    yield made
    Sandbox(made).down()
    assert loop_devices(made) == []


def loop_devices(name):
    """Return the files of a sandbox that loop devices of this machine show."""
    files = [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return [file for file in files if f"/{name}/" in file]


def kill_after(name, delay_s):
    """Kill ``up``, and what it runs itself."""
    with subprocess.Popen(
        [sys.executable, "-c", UP, name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_up_killed_at_any_moment_goes_on_where_it_stopped(name):
    for delay_s in (0.9, 1.1, 1.3, 1.5, 1.7, 1.9, 2.2):
        kill_after(name, delay_s)
    sandbox = Sandbox(name)
    sandbox.up(nodes=3, storage="ceph")
    assert osds_up(sandbox) == {0, 1, 2}
    assert sorted(ceph(sandbox, "quorum_status")["quorum_names"]) == ["hv1", "hv2", "hv3"]
    assert not list(Path(sandbox.layout.state).glob("hv*/ceph/lib/*/.ceph-*"))


@pytest.mark.parametrize("delay_s", [1.0, 1.4, 1.8])
def test_disks_of_a_killed_up_are_removed_without_a_trace(name, delay_s):
    kill_after(name, delay_s)
    Sandbox(name).down()
    assert loop_devices(name) == []


def test_sandbox_grows_by_a_node_with_an_osd_of_its_own(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=1, storage="ceph", disks=1)
    wait_until("it is whole", lambda: ceph(sandbox, "status")["health"]["status"] == "HEALTH_OK", deadline_s=60)
    sandbox.exec("hv1", ["ceph", "osd", "new", str(uuid.uuid4())]).check()  # somebody else's takes the number 1
    sandbox.up(nodes=2)
    assert osds_up(sandbox) == {0, 2}
    tree = {entry["name"]: entry for entry in ceph(sandbox, "osd", "tree", node="hv2")["nodes"]}
    assert tree["hv2"]["children"] == [2]
    assert "ceph-mon@hv2" not in sandbox.host("hv2").services()  # it is no coordinator
    with pytest.raises(SandboxError, match="was made with storage 'ceph', which cannot become 'dir'"):
        sandbox.up(storage="dir")


def test_node_that_is_fenced_comes_back_with_its_osd(name, view_of):
    sandbox = Sandbox(name)
    sandbox.up(nodes=3, storage="ceph", disks=1)
    sandbox.freeze("hv3")
    wait_until("its OSD counts as down", lambda: osds_up(sandbox) == {0, 1}, deadline_s=30)
    wait_until("it is switched off", lambda: sandbox.status().nodes[2].power == "off", deadline_s=120)
    assert len(loop_devices(name)) == 2
    # Booted while its BMC has not read "off" yet, it would be switched off once more.
    wait_until("that is known", lambda: view_of(sandbox).fence_stage("hv3") == "recovered", deadline_s=60)
    sandbox.host("hv3").boot()  # as its BMC does
    wait_until("its OSD is up", lambda: osds_up(sandbox) == {0, 1, 2}, deadline_s=60)
