"""``pvc storage plan``: its input, its output, and the examples of the guide."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pvc_ceph.manifest import MANIFEST
from pvc_ceph.sizing_input import parse_disks, parse_percent
from pvc_core.cli.plugins import PluginCommand
from pvc_core.model.errors import InvalidRequest
from pvc_core.testkit.command_line import CommandLine

GUIDE = Path(__file__).parents[3] / "docs" / "ceph-sizing.md"
GIB, TIB = 1 << 30, 1 << 40


@pytest.fixture
def pvc():
    """The commands of this plugin, on a cluster whose state store does not answer."""
    return CommandLine(None, plugins=[PluginCommand("ceph", spec) for spec in MANIFEST.commands])


def run(pvc, line):
    return pvc("storage", "plan", *shlex.split(line))


# --- sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "disks"),
    [
        ("4x3.84T", (3_840_000_000_000,) * 4),
        ("3.84TB", (3_840_000_000_000,)),
        ("960G", (960_000_000_000,)),
        ("2 x 1TiB", (TIB, TIB)),
        ("1x16T, 2*960g", (16 * 10**12, 960 * 10**9, 960 * 10**9)),
    ],
)
def test_disks_as_their_makers_write_them(text, disks):
    assert parse_disks(text) == disks


@pytest.mark.parametrize(
    "text", ["", "x", "4x", "x4T", "4xT", "4x3.84", "-1x4T", "4x4T,", "4x1M", "0x4T", "201x4T", "1e3T"]
)
def test_what_says_no_disks_is_refused(text):
    with pytest.raises(InvalidRequest, match=r"such as|there can be"):
        parse_disks(text)


def test_percentages():
    assert [parse_percent(text) for text in ("80%", "80 %", "1", 95)] == [80, 80, 1, 95]
    for text in ("0", "96", "", "80.5", "x", "-5%"):
        with pytest.raises(InvalidRequest, match="is no fill level; write 1% to 95%"):
            parse_percent(text)


# --- the command ------------------------------------------------------------------------------------


def test_json_has_all_figures_and_the_warnings(pvc):
    found = run(pvc, "--nodes 3 --disks 4x3.84T --memory 256G --cores 32 -f json").json()
    plan = found["plan"]
    assert plan["usable_bytes"] == 4 * 3_840_000_000_000
    assert plan["host_loss"]["outcome"] == "degraded"
    assert [node["name"] for node in plan["nodes"]] == ["hv1", "hv2", "hv3"]
    assert plan["nodes"][0]["vm_cores"] == 21
    assert len(found["warnings"]) == 1
    assert plan["db_loss"] is None


def test_a_node_of_its_own_replaces_or_joins_the_equal_ones(pvc):
    found = run(pvc, "--nodes 3 --disks 4x4T --node hv2=1x1T --node big=2x8T --format json").json()
    sizes = {node["name"]: node["disk_bytes"] for node in found["plan"]["nodes"]}
    assert sizes == {"hv1": 16 * 10**12, "hv2": 10**12, "hv3": 16 * 10**12, "big": 16 * 10**12}


def test_nodes_may_all_be_given_one_by_one(pvc):
    ran = run(pvc, "--node a=2x4T --node b=2x4T --node c=2x4T")
    assert (ran.status, ran.err) == (0, "")
    assert "\na        2" in ran.out


@pytest.mark.parametrize(("copies", "needed"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_the_copies_that_are_needed_are_those_of_ceph(pvc, copies, needed):
    found = run(pvc, f"--nodes 6 --disks 4x4T --copies {copies} -f json").json()
    assert found["plan"]["mincopies"] == needed


FILE = """\
full_at: 70%
nodes:
  hv1: {disks: [4x3.84T], db_devices: [1.6T], memory: 256G, cores: 32}
  hv2: {disks: [4x3.84T, 1x960G], db_devices: [1.6T], memory: 256G, cores: 32}
  hv3: {disks: [4x3.84T], db_devices: [1.6T], memory: 512G, cores: 64}
  hv4: {memory: 1T, cores: 128}
"""


def test_a_file_says_each_node(pvc, tmp_path):
    path = tmp_path / "nodes.yml"
    path.write_text(FILE)
    found = run(pvc, f"--file {path} -f json").json()["plan"]
    assert found["planned_percent"] == 70
    assert [node["osds"] for node in found["nodes"]] == [4, 5, 4, 0]
    assert found["nodes"][3]["vm_memory_bytes"] == 1020 * GIB
    assert run(pvc, f"--file {path} --full-at 60% -f json").json()["plan"]["planned_percent"] == 60
    as_json = tmp_path / "nodes.json"
    as_json.write_bytes(msgspec.json.encode(msgspec.yaml.decode(FILE)))
    assert run(pvc, f"--file {as_json} -f json").json()["plan"] == found


BAD = [
    ("", "say which nodes: --nodes 3 --disks 4x3.84T"),
    ("--nodes 3", "--nodes and --disks belong together"),
    ("--disks 4x4T", "say which nodes"),
    ("--nodes 3 --disks 4by4T", "'4by4T' says no disks; write their number and size, such as 4x3.84T"),
    ("--nodes 0 --disks 4x4T", "0 is not in the range"),
    ("--nodes 3 --disks 4x4T --node hv4", "'hv4' is not of the form NAME=NxSIZE"),
    ("--nodes 3 --disks 4x4T --node a/b=1x4T", "node name 'a/b' is not a valid name"),
    ("--node a=1x4T --node a=1x4T", "node a is given twice"),
    ("--nodes 3 --disks 4x4T --node hv4=4y", "node hv4: '4y' says no disks"),
    ("--nodes 3 --disks 4x4T --copies 0", "0 copies cannot be had; take 1 to 10, 3 as a rule"),
    ("--nodes 3 --disks 4x4T --copies 3 --mincopies 4", "of 3 copies 4 cannot be needed; give 1 to 3"),
    ("--nodes 3 --disks 4x4T --full-at 96%", "'96%' is no fill level"),
    ("--nodes 3 --disks 4x4T --monitors 4", "4 monitors cannot run on 3 nodes"),
    ("--nodes 3 --disks 4x4T --memory lots", "node hv1: memory 'lots' is not a size"),
    ("--nodes 3 --disks 4x4T --osd-memory 100M", "'100M' is too little memory for an OSD"),
    ("--nodes 3 --disks 4x4T --db-device big", "node hv1: 'big' says no disks"),
    ("--nodes 3 --disks 4x4T --media tape", "'tape' is not one of"),
    ("--file /no/such/file", "cannot read /no/such/file: No such file or directory"),
    ("--file x.yml --nodes 3 --disks 4x4T", "the nodes are given twice"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_bad_input_is_one_clear_line(pvc, line, message):
    ran = run(pvc, line)
    (said,) = ran.err.splitlines()
    assert message in said
    assert (ran.status, ran.out) == (2, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: [", "is neither YAML nor JSON"),
        ("- a", "Expected `object`, got `array`"),
        ("nodes: {}", "0 nodes cannot be planned"),
        ("nodes: {a: {}}", "no node has a disk"),
        ("nodez: {a: {disks: [1x4T]}}", "did you mean 'nodes'?"),
        ("nodes: {a: {discs: [1x4T]}}", "did you mean 'disks'?"),
        ("nodes: {a: {disks: 4}}", "Expected `array`, got `int`"),
        ("nodes: {a: {disks: [4]}}", "Expected `str`, got `int`"),
        ("nodes: {a: {disks: [4x]}}", "node a: '4x' says no disks"),
        ("nodes: {a: {disks: [1x4T], cores: -1}}", "cores"),
        ("nodes: {1: {disks: [1x4T]}}", "Expected `str`"),
        ("\x00", "is neither YAML nor JSON"),
    ],
)
def test_a_bad_file_is_one_clear_line(pvc, tmp_path, text, message):
    path = tmp_path / "nodes.yml"
    path.write_text(text)
    ran = run(pvc, f"--file {path}")
    (said,) = ran.err.splitlines()
    assert message in said
    assert (ran.status, ran.out) == (2, "")


def test_the_command_imports_neither_the_driver_nor_the_libraries_of_ceph():
    code = (
        "import sys, pvc_ceph.cli.plan\n"
        "print([name for name in ('rados', 'rbd', 'pvc_ceph.driver', 'kazoo', 'libvirt') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"


def test_no_line_is_wider_than_a_terminal_of_100_columns(pvc):
    ran = run(
        pvc, "--nodes 3 --disks 12x16T --node hv10=2x960G --db-device 2x1.6T --memory 256G --cores 64 --media hdd"
    )
    assert max(map(len, ran.out.splitlines())) <= 100


# --- the guide --------------------------------------------------------------------------------------

EXAMPLES = re.findall(r"^```\n\$ pvc storage plan (.*?)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_guide_has_examples():
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize(("line", "printed"), EXAMPLES)
def test_the_guide_shows_what_the_command_prints(pvc, line, printed):
    ran = run(pvc, line)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == printed
