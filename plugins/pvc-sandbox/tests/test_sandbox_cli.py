"""The commands, and what they cost."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from pvc_core.cli.session import Session
from pvc_sandbox import cli, layout, links, logs, requirements, sandbox
from pvc_sandbox.control import ServiceState
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.node_bmc import NodeBmc
from pvc_sandbox.sandbox import Sandbox
from pvc_sandbox.status import NodeState, SandboxState

STATE = SandboxState(
    name="t",
    state_directory="/s",
    client_config="/s/pvc.yml",
    switch="pvc-t",
    cluster_network="10.77.0.0/24",
    guest_network="10.78.0.0/24",
    nodes=(
        NodeState(
            name="hv1",
            role="coordinator",
            address="10.77.0.1",
            power="on",
            link="up",
            bmc="hangs",
            uri="qemu:///x",
            services=(
                ServiceState(name="libvirtd", wanted=True, pid=2, starts=1),
                ServiceState(name="pvcnoded", wanted=True, pid=0, starts=4, last_exit="SIGKILL"),
            ),
        ),
    ),
)


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    for module in (layout, sandbox):
        monkeypatch.setattr(module, "RUN_ROOT", tmp_path / "run")
        monkeypatch.setattr(module, "STATE_ROOT", tmp_path / "state")
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(cli.sandbox, arguments, obj=Session(), catch_exceptions=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("bmc", "hv1"),
        ("shell", "hv1"),
        ("power-cut", "hv1"),
        ("cut-link", "hv1"),
        ("logs", "hv1"),
        ("power-on", "hv1"),
    ],
)
def test_sandbox_that_is_not_there_is_told(arguments):
    error = invoke(*arguments).exception
    assert isinstance(error, SandboxError)
    assert str(error) == "there is no sandbox named 'default'; make it: pvc sandbox up --name default"


def test_name_that_would_lead_elsewhere_is_refused():
    for command in ("up", "down", "status"):
        assert "not valid" in str(invoke(command, "--name", "../etc").exception)


def test_down_of_nothing_is_success():
    result = invoke("down", "--name", "x")
    assert result.exit_code == 0
    assert "there is no sandbox named 'x'" in result.stderr


def test_missing_packages_are_named_with_the_command(monkeypatch):
    monkeypatch.setattr(requirements, "missing_packages", lambda *, ceph: ["zookeeper", "seabios"])
    with pytest.raises(SandboxError, match="apt-get install --no-install-recommends zookeeper seabios"):
        requirements.check_requirements()


def test_ordinary_user_is_told_to_be_root(monkeypatch):
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 1000)
    with pytest.raises(SandboxError, match="only root may"):
        requirements.check_requirements()


def test_packages_for_ceph_are_wanted_only_with_it(monkeypatch):
    monkeypatch.setattr(requirements.glob, "glob", lambda _: [])
    assert "ceph-mon" not in requirements.missing_packages()
    assert {"zookeeper", "ceph-mon", "ceph-osd", "python3-rados"} <= {*requirements.missing_packages(ceph=True)}


def test_python_that_does_not_see_debians_binding_is_told_only_for_ceph(monkeypatch):
    monkeypatch.setattr(requirements, "missing_packages", lambda *, ceph: [])
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 0)
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: None if name == "rados" else name)
    requirements.check_requirements()
    with pytest.raises(SandboxError, match="--system-site-packages"):
        requirements.check_requirements(ceph=True)


@pytest.mark.parametrize("name", ["packages.txt", "packages-ceph.txt"])
def test_every_package_has_a_proof(name):
    lines = (Path(requirements.__file__).parent / name).read_text().splitlines()
    assert all(len(line.split()) == 2 for line in lines if line and not line.startswith("#"))


def test_storage_of_a_new_sandbox_is_handed_on(monkeypatch, machine):
    given = {}
    monkeypatch.setattr(Sandbox, "up", lambda _, nodes, **changes: given.update(changes))
    monkeypatch.setattr(Sandbox, "client_config", machine / "pvc.yml")
    assert invoke("up", "--storage", "ceph").exit_code == 0
    assert given["storage"] == "ceph"
    assert invoke("up").exit_code == 0
    assert given["storage"] is None
    assert invoke("up", "--storage", "tape").exit_code == 2


def test_network_of_a_new_sandbox_is_handed_on(monkeypatch, machine):
    given = {}
    monkeypatch.setattr(Sandbox, "up", lambda _, nodes, **changes: given.update(changes))
    monkeypatch.setattr(Sandbox, "client_config", machine / "pvc.yml")
    assert invoke("up", "--network", "vxlan").exit_code == 0
    assert given["network"] == "vxlan"
    assert invoke("up").exit_code == 0
    assert given["network"] is None
    assert invoke("up", "--network", "wlan").exit_code == 2


def test_plugins_of_managed_networks_are_wanted_only_for_them(monkeypatch):
    monkeypatch.setattr(requirements, "missing_packages", lambda *, ceph: [])
    monkeypatch.setattr(requirements.os, "geteuid", lambda: 0)
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: None if name == "pvc_vxlan" else name)
    requirements.check_requirements()
    with pytest.raises(SandboxError, match=r"pvc_vxlan cannot be imported; install .*pvc-sandbox\[vxlan\]"):
        requirements.check_requirements(vxlan=True)


@pytest.mark.parametrize(
    ("words", "pulled"),
    [
        ((), {"management": False, "only": []}),
        (("--management",), {"management": True, "only": []}),
        (("--only", "upstream", "--only", "guests"), {"management": False, "only": [links.UPSTREAM, links.GUESTS]}),
    ],
)
def test_cables_to_cut(monkeypatch, words, pulled):
    given = {}
    monkeypatch.setattr(Sandbox, "cut_link", lambda _, node, **networks: given.update(networks))
    assert invoke("cut-link", "hv1", *words).exit_code == 0
    assert given == pulled


@pytest.mark.parametrize("words", [("--only", "wlan"), ("--only", "guests", "--management")])
def test_cables_that_cannot_be_meant(words):
    assert invoke("cut-link", "hv1", *words).exit_code == 2


def test_status_of_cables_and_of_the_router(monkeypatch):
    node = msgspec.structs.replace(STATE.nodes[0], cut=("guests", "upstream"))
    state = msgspec.structs.replace(STATE, upstream_network="10.80.0.0/24", router="off", nodes=(node,))
    monkeypatch.setattr(Sandbox, "status", lambda _: state)
    result = invoke("status")
    assert " up (cut: guests, upstream) " in result.stdout
    assert "router in 10.80.0.0/24 off" in result.stderr
    monkeypatch.setattr(Sandbox, "status", lambda _: STATE)
    assert "router" not in invoke("status").stderr


def test_status_as_table_and_as_json(monkeypatch):
    monkeypatch.setattr(Sandbox, "status", lambda _: STATE)
    table = invoke("status").stdout
    assert " hangs " in table
    assert "pvcnoded DOWN, started 4 times, last end: SIGKILL" in table
    assert '"uri": "qemu:///x"' in invoke("status", "--format", "json").stdout


@pytest.mark.parametrize("fault", ["", "sick", "slow", "slow=", "slow=x", "slow=nan", "slow=-1", "slow=601", "dead=1"])
def test_unknown_fault_is_refused_before_anything_is_done(fault):
    result = invoke("bmc", "hv1", "--fault", fault)
    assert result.exit_code == 2
    assert "none of dead, hang, stuck, none, slow=SECONDS (up to 600)" in result.stderr


def test_faults_of_a_bmc(monkeypatch, machine):
    done = []
    there = NodeBmc(layout.Layout(name="t", index=3, state=str(machine)), 1)
    monkeypatch.setattr(Sandbox, "bmc", lambda _, node: done.append(node) or there)
    for name in ("slow", "dead", "change_password"):
        monkeypatch.setattr(NodeBmc, name, lambda *_, name=name, **given: done.append((name, given)))
    monkeypatch.setitem(cli._FAULTS, "dead", NodeBmc.dead)
    monkeypatch.setattr(NodeBmc, "faults", lambda _: ("slow (2.5 s)", "other password"))
    result = invoke("bmc", "hv1", "--fault", "slow=2.5", "--password-wrong")
    assert done == ["hv1", ("slow", {"seconds": 2.5}), ("change_password", {})]
    assert "10.79.3.101:623" in result.stdout
    assert "slow (2.5 s), other password" in result.stdout
    assert '"faults": [' in invoke("bmc", "hv1", "--fault", "dead", "--format", "json").stdout
    assert done[-1] == ("dead", {})


def test_commands_cost_nothing_until_they_are_called():
    program = (
        "import sys; import pvc_sandbox.manifest; "
        "print([m for m in ('click', 'pyroute2', 'yaml', 'libvirt', 'kazoo') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_manifest_names_a_command_that_is_there():
    from pvc_sandbox.manifest import MANIFEST

    assert MANIFEST.commands[0].target == "pvc_sandbox.cli:sandbox"
    assert set(cli.sandbox.commands) >= {
        "up", "down", "status", "shell", "power-cut", "power-on", "cut-link", "heal-link", "bmc", "logs",
    }  # fmt: skip


@pytest.mark.parametrize(("lines", "seen"), [(0, []), (1, ["c"]), (2, ["b", "c"]), (9, ["a", "b", "c"])])
def test_end_of_a_log(tmp_path, lines, seen):
    path = tmp_path / "log"
    for text in ("a\nb\nc\n", "a\nb\nc"):
        path.write_text(text)
        assert list(logs.tail(path, lines)) == seen


def test_end_of_a_long_log(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {n:060}\n" for n in range(5000)))
    assert next(iter(logs.tail(path, 2000))) == f"line {3000:060}"


def test_log_is_followed(tmp_path):
    path = tmp_path / "log"
    path.write_text("old\nlast\nha")
    following = logs.tail(path, 2, follow=True)
    assert next(following) == "last"
    with path.open("a") as file:
        file.write("lf\nnew\n")
    assert [next(following), next(following)] == ["half", "new"]
    following.close()


def test_log_that_is_not_there_yet_is_told(tmp_path):
    with pytest.raises(SandboxError, match="does not exist yet"):
        list(logs.tail(tmp_path / "log", 1))
