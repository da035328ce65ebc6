"""``pvc storage osd``: what it asks for and prints, on a cluster whose nodes answer from a table."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pvc_ceph.blocked import Blocked
from pvc_ceph.manifest import MANIFEST
from pvc_ceph.osd.values import AddPreview, DeviceRow, OsdList, OsdRow
from pvc_ceph.report import Check, Daemon, PoolUse, Status, Use
from pvc_core.cli.plugins import PluginCommand
from pvc_core.client.local import Client
from pvc_core.model.errors import Unavailable
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, add_node

GIB = 1 << 30
EXPECTED = [
    "1",
    "hv2",
    "/dev/sdb",
    "/dev/nvme0n1",
    "hdd",
    "4",
    "GiB",
    "25.0",
    "%",
    "0.00390",
    "1.00",
    "0",
    "up,in,noout",
]


def osd(id_, node, **fields):
    figures = {"size_bytes": 4 * GIB, "used_bytes": GIB, "used_percent": 25.0, "weight": 0.0039, "reweight": 1.0}
    return OsdRow(
        id=id_, fsid=f"f{id_}", node=node, device="/dev/sdb", device_class="hdd", **{**figures, "up": True, **fields}
    )


ROWS = (
    osd(0, "hv1", inside=True, pgs=12),
    osd(1, "hv2", inside=True, flags=("noout",), db="/dev/nvme0n1"),
    osd(2, "hv3", inside=True, up=False),
    osd(3, "hv9", inside=False, up=False, reweight=0.0),
)
LISTING = OsdList(fsid="c", osds=ROWS, flags=("noscrub",), copies=3, answered_by="hv2")
DEVICES = [
    DeviceRow(device="/dev/sdb", path="/dev/sdb", size_bytes=4 * GIB, device_class="hdd", free=True),
    DeviceRow(
        device="/dev/sda", path="/dev/sda", size_bytes=GIB, device_class="ssd", free=False, found=("is mounted at /",)
    ),
]
PREVIEW = AddPreview(
    device="/dev/sdb",
    osds=2,
    size_bytes=2 * GIB,
    device_class="hdd",
    db="pvc-db-1",
    db_bytes=GIB,
    warning="uneven: 4 to 8",
)


class Cluster:
    def __init__(self, monkeypatch):
        self.tree = MemoryTree()
        plugins = [PluginCommand("ceph", spec) for spec in MANIFEST.commands]
        self._pvc = CommandLine(self.tree, plugins=plugins)
        for name in ("hv1", "hv2", "hv3"):
            add_node(self.tree, name)
        self.answers = {"ceph.osd-list": LISTING, "ceph.devices": DEVICES, "ceph.osd-preview": PREVIEW}
        self.asked = []
        monkeypatch.setattr(Client, "ask", lambda _client, query, /, node="", **words: self._ask(query, node, words))

    def _ask(self, query, node, arguments):
        self.asked.append((query, node, arguments))
        answer = self.answers[query]
        if isinstance(answer, Exception):
            raise answer
        return msgspec.to_builtins(answer)

    def __call__(self, *words, **options):
        return self._pvc("storage", "osd", *words, **options)

    def task(self, *words, **options):
        """Run a command that begins a task, and return the command and the task."""
        ran = self(*words, "--no-wait", "-f", "json", **options)
        assert ran.status == 0, ran.err
        return ran, ran.json()["task"]


@pytest.fixture
def pvc(monkeypatch):
    return Cluster(monkeypatch)


def test_list_shows_how_full_osds_are(pvc):
    ran = pvc("list")
    lines = ran.out.splitlines()
    assert lines[0].split()[:5] == ["OSD", "NODE", "DEVICE", "DB", "CLASS"]
    assert lines[2].split() == EXPECTED
    assert lines[4].split()[-1] == "down,out"
    assert len(pvc("list", "--node", "hv1").out.splitlines()) == 2
    assert pvc("list", "--node", "x").out == "" or "node x has no OSDs" in pvc("list", "--node", "x").err
    assert pvc("list", "-f", "json").json()[0]["inside"] is True


def test_list_is_there_while_no_manager_is(pvc):
    pvc.answers["ceph.osd-list"] = msgspec.structs.replace(LISTING, measured=False)
    ran = pvc("list")
    assert (ran.status, len(ran.out.splitlines())) == (0, 5)
    assert "no manager of Ceph answers" in ran.err


def test_devices_say_why_they_are_not_free(pvc):
    ran = pvc("devices", "hv1")
    assert "is mounted at /" in ran.out
    assert pvc.asked == [("ceph.devices", "hv1", {})]
    assert [row["free"] for row in pvc("devices", "hv1", "--format", "json").json()] == [True, False]


def test_addition_warns_asks_and_begins_a_task_on_its_node(pvc):
    words = ["add", "hv1", "/dev/sdb", "--count", "2", "--weight", "0.5", "--class", "ssd", "--db-ratio", "2.5%"]
    ran, task = pvc.task(*words, input="y\n", interactive=True)
    assert "uneven: 4 to 8" in ran.err
    assert "make 2 OSDs of 2 GiB (class hdd, metadata on pvc-db-1, 1 GiB) on /dev/sdb of node hv1?" in ran.err
    assert (task["kind"], task["node"], task["subject"]) == ("ceph.osd.add", "hv1", "/dev/sdb of node hv1")
    assert task["arguments"] == {
        "device": "/dev/sdb",
        "count": 2,
        "weight": "0.5",
        "device_class": "ssd",
        "db_percent": "2.5",
    }


def test_nothing_begins_without_confirmation_or_when_it_is_refused(pvc):
    ran = pvc("add", "hv1", "/dev/sdb")
    assert (ran.status, ran.out) == (2, "")
    assert "repeat it with --yes" in ran.err
    pvc.answers["ceph.osd-preview"] = Unavailable("/dev/sdb has data on it: ext4")
    ran = pvc("add", "hv1", "/dev/sdb", "--yes")
    assert (ran.status, ran.err) == (1, "pvc: /dev/sdb has data on it: ext4\n")
    assert pvc._pvc("task", "list", "-f", "json").json() == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("add hv1 /dev/sdb --db-size 1G --db-ratio 2%", "give --db-size or --db-ratio, not both"),
        ("add hv1 /dev/sdb --db-ratio 60%", "is no percentage of 0.1 to 50"),
        ("add hv1 /dev/sdb --db-ratio x", "is no percentage of 0.1 to 50"),
        ("add hv1 /dev/sdb --db-size x", "--db-size 'x' is not a size"),
        ("add hv1 /dev/sdb --count 0", "0 is not in the range 1<=x<=16"),
        ("remove 7 --yes", "there is no OSD 7; there are: 0, 1, 2, 3"),
        ("remove x --yes", "'x' is not a valid integer"),
        ("remove 3 --yes", "node hv9, which has OSD 3, is not alive; once it is gone for good, --force lets"),
        ("replace 1 /dev/sdc --yes", "OSD 1 has its metadata on /dev/nvme0n1; say where that of the new one goes"),
        ("replace 1 /dev/sdc --no-db --db-size 1G --yes", "exclude each other"),
        ("out 0 9 --yes", "there is no OSD 9"),
        ("in 9", "there is no OSD 9"),
        ("flag set full", "'full' is not one of"),
        ("flag set noscrub 0", "noscrub is a flag of the whole cluster; single OSDs have noout, noin, nodown, noup"),
        ("flag unset noout 9", "there is no OSD 9"),
    ],
)
def test_bad_input_is_one_clear_line(pvc, words, message):
    ran = pvc(*words.split())
    (said,) = ran.err.splitlines()
    assert message in said
    assert (ran.status, ran.out) == (2, "")


def test_unknown_node_is_told(pvc):
    ran = pvc("refresh", "hv9")
    assert (ran.status, ran.out) == (1, "")
    assert "no node named 'hv9'" in ran.err


def test_removal_warns_of_what_cannot_go_well(pvc):
    ran, task = pvc.task("remove", "0", "--yes")
    assert "2 hosts have OSDs, and each of the 3 copies needs another host" in " ".join(ran.err.split())
    assert (task["node"], task["arguments"]) == ("hv1", {"osd": 0, "force": False, "absent": False})


def test_forced_removal_says_what_may_be_lost(pvc):
    ran = pvc("remove", "0", "--force", input="n\n", interactive=True)
    assert "remove OSD 0 (/dev/sdb) of node hv1 at once; 12 placement groups may lose data?" in ran.err
    assert ran.status == 1


def test_osd_of_a_lost_node_is_removed_by_another_with_force(pvc):
    _, task = pvc.task("remove", "3", "--yes", "--force")
    assert (task["node"], task["arguments"]) == ("hv2", {"osd": 3, "force": True, "absent": True})


def test_replacement_asks_whether_the_new_disk_will_do(pvc):
    _, task = pvc.task("replace", "1", "/dev/sdc", "--db-size", "1G", "--yes")
    arguments = {"device": "/dev/sdc", "db_bytes": GIB}
    assert (task["node"], task["arguments"]) == ("hv2", {"osd": 1, "force": False, **arguments})
    assert pvc.asked[-1] == ("ceph.osd-preview", "hv2", {**arguments, "device_class": "hdd", "replaces": 1})


def test_metadata_may_go_with_the_data(pvc):
    assert pvc.task("replace", "1", "/dev/sdc", "--no-db", "--yes")[1]["arguments"]["device"] == "/dev/sdc"
    assert pvc.task("replace", "0", "/dev/sdc", "--yes")[1]["node"] == "hv1"


def test_out_asks_only_when_it_is_unwise(pvc):
    ran = pvc("out", "0")
    assert "repeat it with --yes" in ran.err
    _, task = pvc.task("out", "3")
    assert (task["kind"], task["node"], task["arguments"]) == ("ceph.osd.out", "hv2", {"osds": ["3"]})
    assert pvc.task("in", "0", "1")[1]["arguments"] == {"osds": ["0", "1"]}


def test_flags(pvc):
    _, task = pvc.task("flag", "set", "noout", "1", "2")
    assert task["arguments"] == {"flag": "noout", "wanted": True, "osds": ["1", "2"]}
    assert pvc.task("flag", "unset", "noscrub")[1]["arguments"] == {"flag": "noscrub", "wanted": False, "osds": []}
    assert pvc("flag", "list", "-f", "json").json() == [{"flag": "noscrub", "osd": None}, {"flag": "noout", "osd": 1}]


@pytest.mark.parametrize("flag", ["pause", "noup", "nodown"])
def test_flag_that_harms_guests_is_set_after_a_question_only(pvc, flag):
    ran = pvc("flag", "set", flag)
    assert ran.status == 2
    assert f"{flag}: " in ran.err
    assert pvc.task("flag", "set", flag, "--yes")[1]["arguments"]["flag"] == flag


def test_the_commands_import_neither_the_driver_nor_the_libraries_of_ceph():
    code = (
        "import sys, pvc_ceph.cli.osd\n"
        "print([name for name in ('rados', 'rbd', 'pvc_ceph.driver', 'pvc_ceph.workers', 'kazoo', 'libvirt')"
        " if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize("type_", [OsdRow, DeviceRow, Status, Check, Daemon, Use, PoolUse, Blocked])
def test_the_documented_fields_are_those_that_are_printed(type_):
    text = (Path(__file__).parents[1] / "README.md").read_text()
    section = re.split(r"^\w+:$", text.partition(f"\n{type_.__name__}:\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [
        field.encode_name for field in msgspec.structs.fields(type_)
    ]
