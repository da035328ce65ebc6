"""`pvc vm disk`: the answers to people, on a state tree in memory whose nodes do nothing by themselves."""

import msgspec
import pytest

from pvc_core.model.base import Condition
from pvc_core.model.vm import VmClaim, VmState, VmStatus, started_with
from pvc_core.ops.context import Ops
from pvc_core.ops.pool import PoolAdd, pool_add
from pvc_core.ops.volume import VolumeAdd, volume_add
from pvc_core.store import keys
from pvc_core.store.documents import create, read
from pvc_core.store.memory import MemoryTree
from pvc_core.testkit.command_line import CommandLine, Ran, add_node

WEB = "name: web\nmemory: 64M\nnode: node1\ndisks: [{pool: ssd, volume: root}]\n"


class Web:
    """VM web, which runs with volume root, and the volume data."""

    def __init__(self) -> None:
        tree = MemoryTree()
        self.pvc = CommandLine(tree)
        add_node(tree, "node1")
        self.store = tree.connect()
        ops = Ops(self.store)
        pool_add(ops, PoolAdd(name="ssd", driver="dir"))
        for name in ("root", "data"):
            volume_add(ops, VolumeAdd(pool="ssd", name=name, size="1G"))
        assert self.pvc("vm", "define", "-", "--start", "--no-wait", input=WEB).status == 0
        self.id = self.pvc("vm", "info", "web", "--format", "json").json()["view"]["id"]
        self.store.commit(create(keys.claim(self.id), VmClaim(vm=self.id, node="node1", lease=1, epoch=1)))
        spec = self.spec()
        status = VmStatus(id=self.id, state=VmState.RUNNING, node="node1", observed_generation=1, **started_with(spec))
        self.store.commit(create(keys.vm_status(self.id), status))

    def spec(self):
        return read(self.store, keys.vm_spec(self.id)).value

    def report(self, **changes: object) -> None:
        """Let the node have seen what is wanted, and say more."""
        entry = read(self.store, keys.vm_status(self.id))
        seen = {"observed_generation": self.spec().generation} | changes
        self.store.commit(entry.put(msgspec.structs.replace(entry.value, **seen)))

    def disk(self, *args: str) -> Ran:
        return self.pvc("vm", "disk", *args)


@pytest.fixture
def web() -> Web:
    return Web()


def test_a_disk_is_given_with_its_settings(web: Web) -> None:
    ran = web.disk("add", "web", "ssd/data", "--iops", "300", "--bandwidth", "100M", "--no-discard", "--no-wait")
    assert (ran.status, ran.out) == (0, "VM web has the disk ssd/data\n")
    disk = web.spec().disks[1]
    assert (disk.path, disk.discard, disk.limits.iops, disk.limits.bandwidth) == ("ssd/data", False, 300, 100 << 20)


def test_the_table_says_what_there_is_to_say(web: Web) -> None:
    assert web.disk("list", "web").out.split() == [
        "VOLUME",
        "BUS",
        "CACHE",
        "MODE",
        *["ssd/root", "virtio", "none", "read-write"],
    ]
    web.disk("add", "web", "ssd/data", "--write-iops", "50", "--no-wait")
    web.disk("remove", "web", "ssd/data", "--no-wait")
    head, _, data = web.disk("list", "web").out.splitlines()
    assert head.split()[-2:] == ["LIMITS", "STATE"]
    assert "write iops 50/s" in data
    assert "being removed" in data
    assert [row["removing"] for row in web.disk("list", "web", "--format", "json").json()] == [False, True]
    assert "being removed" in web.pvc("vm", "info", "web").out


def test_what_needs_a_restart_says_why_and_how(web: Web) -> None:
    ran = web.disk("add", "web", "ssd/data", "--bus", "sata")
    assert ran.status == 0
    assert ran.err == (
        "VM web runs with the old settings (ssd/data is not plugged in while it runs, for bus sata cannot do that) until: "
        "pvc vm restart web\n"
    )
    answer = web.disk("modify", "web", "ssd/root", "--cache", "writeback", "--format", "json").json()
    assert answer["restart_needed"]
    assert "ssd/root has other settings" in answer["reasons"]


def test_a_wait_ends_when_the_guest_has_followed(web: Web) -> None:
    web.disk("add", "web", "ssd/data", "--no-wait")
    web.report()
    ran = web.disk("add", "web", "ssd/data")
    assert ran.status == 2  # it is there: nothing to wait for
    assert web.disk("modify", "web", "ssd/data", "--iops", "5", "--timeout", "0.1s").status == 1
    web.report(observed_generation=99)
    assert (
        web.disk("modify", "web", "ssd/data", "--iops", "6").out == "VM web has the disk ssd/data with these settings\n"
    )


@pytest.mark.parametrize("reason", ["GuestKeepsDisk", "PlugFailed"])
def test_a_wait_ends_with_what_does_not_work(web: Web, reason: str) -> None:
    web.disk("add", "web", "ssd/data", "--no-wait")
    web.report(conditions=(Condition(type="Disks", ok=False, reason=reason, message="ssd/data is stuck"),))
    # The node's word on this generation, as it would be on the next one.
    entry = read(web.store, keys.vm_status(web.id))
    web.store.commit(entry.put(msgspec.structs.replace(entry.value, observed_generation=99)))
    ran = web.disk("remove", "web", "ssd/data")
    assert (ran.status, ran.err) == (1, "pvc: VM 'web': ssd/data is stuck\n")


def test_modify_waits_for_the_disks_too(web: Web) -> None:
    web.report(
        observed_generation=99, conditions=(Condition(type="Disks", ok=False, reason="PlugFailed", message="no slot"),)
    )
    ran = web.pvc("vm", "modify", "web", "--add-disk", "ssd/data", "--yes")
    assert (ran.status, ran.err.splitlines()[-1]) == (1, "pvc: VM 'web': no slot")
    assert (
        web.pvc("vm", "modify", "web", "--remove-disk", "ssd/data", "--yes", "--no-wait").out == "VM web is changed\n"
    )


def test_a_wait_goes_on_while_the_guest_may_still_let_go(web: Web) -> None:
    web.disk("add", "web", "ssd/data", "--no-wait")
    web.report(
        observed_generation=99,
        conditions=(Condition(type="Disks", ok=False, reason="Unplugging", message="the guest was asked"),),
    )
    ran = web.disk("remove", "web", "ssd/data", "--timeout", "0.1s")
    assert ran.status == 1
    assert "not finished in time (still: running: the guest was asked)" in ran.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("add", "web", "data"), "'data' is not a volume: write pool/volume"),
        (("add", "web", "ssd/none"), "no volume named 'ssd/none'"),
        (("add", "web", "ssd/data", "--iops", "5", "--read-iops", "5"), "limit iops is that of reading and writing"),
        (("add", "web", "ssd/data", "--bandwidth", "fast"), "'fast' is not a size"),
        (("modify", "web", "ssd/root"), "say what to change of disk ssd/root"),
        (("modify", "web", "ssd/root", "--iops-burst", "5"), "limit iops_burst needs a limit iops"),
        (("remove", "web", "ssd/root"), "its first disk: shut it down first"),
        (("remove", "web", "ssd/data"), "VM 'web' has no disk 'ssd/data'"),
    ],
)
def test_what_is_refused_changes_nothing(web: Web, args: tuple[str, ...], said: str) -> None:
    before = web.spec()
    ran = web.disk(*args)
    assert ran.status in (1, 2)
    assert said in ran.err
    assert web.spec() == before
