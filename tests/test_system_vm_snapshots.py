"""Snapshots of whole VMs on real nodes, with a real guest agent, on XFS, which shares blocks between files."""

import os
import re
import signal
import subprocess

import pytest
import yaml

from pvc_core.plugin.process import run
from pvc_sandbox.images.linux import LINUX_MEMORY_MIB, tiny_linux
from pvc_sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

DISKS = ("root", "data")
MIB = 1 << 20


@pytest.fixture(scope="module")
def xfs(tmp_path_factory):
    """Return a mounted XFS, which nodes that are booted later see."""
    directory = tmp_path_factory.mktemp("snapshots")
    image, mounted = directory / "xfs.img", directory / "xfs"
    with image.open("wb") as file:
        file.truncate(600 * MIB)
    mounted.mkdir()
    run(["mkfs.xfs", "-q", str(image)], deadline_s=60).check()
    run(["mount", "-o", "loop", str(image), str(mounted)], deadline_s=60).check()
    yield mounted
    run(["umount", str(mounted)], deadline_s=60).check()


@pytest.fixture(scope="module")
def site(xfs, view_of):
    """Return a cluster of two nodes whose pool is on XFS."""
    tiny_linux(agent=True)
    sandbox = Sandbox(f"pytest-{os.getpid()}-snapshots")
    try:
        sandbox.up(nodes=2, bmc=False)
        path = xfs / "images"
        path.mkdir()
        made = view_of(sandbox)
        made.pvc("storage", "pool", "add", "images", "-d", "dir", "-p", f"path={path}")
        yield made
        made.close()
    finally:
        sandbox.down()


class Web:
    """A VM with two disks, on one after the other of which its guest counts, when it counts."""

    def __init__(self, site, directory, name, *, pool="images", counts=True):
        self.site, self.directory, self.name, self.pool = site, directory, name, pool
        linux = tiny_linux(agent=True)
        for disk in DISKS:
            image = directory / f"{disk}.raw"
            with image.open("wb") as file:
                file.truncate(16 * MIB)
            run(["mkfs.ext4", "-q", str(image)], deadline_s=60).check()
            site.pvc("storage", "volume", "import", f"{pool}/{name}-{disk}", str(image))
        words = {"files": "vda,vdb", "agent": 1} if counts else {"agent": 1}
        definition = {
            "name": name,
            "memory": LINUX_MEMORY_MIB,
            "direct_kernel": {
                "kernel": str(linux.kernel),
                "initrd": str(linux.initrd),
                "cmdline": linux.command_line(**words),
            },
            "disks": [{"pool": pool, "volume": f"{name}-{disk}"} for disk in DISKS],
        }
        path = directory / f"{name}.yml"
        path.write_text(yaml.safe_dump(definition))
        site.pvc("vm", "define", str(path), "--node", "hv2", "--start")
        self.id = site.id(name)

    def until_it_counts(self):
        before = self.told()
        self.site.eventually("the guest counts", lambda: self.told() > before)

    def until_agent(self):
        ping = ["virsh", "domtime", self.id]
        answers = self.site.eventually("its agent answers", lambda: not self.site.sandbox.exec("hv2", ping).returncode)
        assert answers

    def told(self):
        return max(map(int, re.findall(r"counted (\d+)\r?$", self.site.console(self.id), re.MULTILINE)), default=0)

    def snapshot(self, *words):
        return self.site.pvc.json("vm", "snapshot", *words[:1], self.name, *words[1:])

    def create(self, *words):
        return self.snapshot("create", *words)["task"]["result"]

    def exported(self, snapshot=""):
        """Return the disks, or what a snapshot has of them, as files."""
        found = []
        for disk in DISKS:
            path = self.directory / f"{self.name}-{disk}-{snapshot or 'now'}.raw"
            words = ["--snapshot", snapshot] if snapshot else []
            self.site.pvc("storage", "volume", "export", f"{self.pool}/{self.name}-{disk}", str(path), *words)
            found.append(path)
        return found

    def kept(self):
        rows = [self.site.pvc.json("storage", "snapshot", "list", f"{self.pool}/{self.name}-{disk}") for disk in DISKS]
        return [[row["name"] for row in found] for found in rows]

    def remove(self):
        self.site.pvc("vm", "remove", self.name, "--force", "--volumes", "--yes")
        left = "storage", "volume", "list", f"^{self.name}-"
        self.site.eventually("its volumes are gone", lambda: self.site.pvc.json(*left) == [])


@pytest.fixture
def web(site, tmp_path):
    made = []

    def make(name, **more):
        made.append(Web(site, tmp_path, name, **more))
        return made[-1]

    yield make
    for each in made:
        each.remove()


def shown(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def count(image):
    """Return the number in the file on a file system, as a mount finds it."""
    done = subprocess.run(["e2fsck", "-fy", image], check=False, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout
    return int(shown("debugfs", "-R", "cat /count", str(image)) or 0)


def is_clean(image):
    return "needs_recovery" not in shown("dumpe2fs", "-h", str(image))


def demand_instants(vm):
    """Demand that a running VM's disks are kept as of one instant, and come back."""
    vm.until_it_counts()
    vm.until_agent()
    frozen = vm.create("frozen", "--freeze")
    assert (frozen["consistency"], frozen["not_frozen"]) == ("filesystem", "")
    assert frozen["paused_s"] < 10
    vm.until_it_counts()
    assert vm.create("crash", "--no-freeze")["consistency"] == "crash"
    vm.until_it_counts()
    assert vm.kept() == [["frozen", "crash"]] * 2

    images = vm.exported("frozen")
    assert all(is_clean(image) for image in images)
    first, second = map(count, images)
    assert first > 0
    assert first - second in (0, 1)
    images = vm.exported("crash")
    assert not any(is_clean(image) for image in images)
    third, fourth = map(count, images)
    assert third > first
    assert third - fourth in (0, 1)

    status, message = vm.site.refused("vm", "snapshot", "rollback", vm.name, "frozen", "--yes")
    assert (status, "shut it down first" in message) == (1, True)
    vm.site.pvc("vm", "stop", vm.name, "--yes")
    assert vm.create("off")["consistency"] == "offline"
    vm.site.pvc("vm", "snapshot", "rename", vm.name, "frozen", "golden")
    vm.site.pvc("vm", "snapshot", "rollback", vm.name, "golden", "--yes")
    assert list(map(count, vm.exported())) == [first, second]
    vm.site.pvc("vm", "start", vm.name)
    vm.until_it_counts()
    for name in ("golden", "crash", "off"):
        vm.site.pvc("vm", "snapshot", "delete", vm.name, name, "--yes")
    assert vm.kept() == [[], []]
    assert vm.snapshot("list") == []


def test_a_running_vm_is_kept_at_one_instant_and_rolled_back(web):
    demand_instants(web("web"))


@pytest.mark.ceph
def test_a_running_vm_on_ceph_is_kept_at_one_instant_and_rolled_back(ceph_cluster, tmp_path):
    tiny_linux(agent=True)
    vm = Web(ceph_cluster, tmp_path, "cephweb", pool="systemtest")
    try:
        demand_instants(vm)
    finally:
        vm.remove()


def domain_state(vm):
    return vm.site.sandbox.exec("hv2", ["virsh", "domstate", vm.id]).stdout.strip()


def test_a_guest_goes_on_when_storage_is_too_slow(web, xfs):
    vm = web("slow", counts=False)
    vm.until_agent()
    run(["fsfreeze", "-f", str(xfs)], deadline_s=30).check()
    try:
        asked = vm.site.pvc.json("vm", "snapshot", "create", "slow", "s1", "--no-wait")["task"]["id"]
        vm.site.eventually("it stands still", lambda: domain_state(vm) == "paused")
        vm.site.eventually("it goes on", lambda: domain_state(vm) == "running", 30)
    finally:
        run(["fsfreeze", "-u", str(xfs)], deadline_s=30).check()
    vm.site.eventually("the task ends", lambda: vm.site.pvc.json("task", "info", asked)["finished"])
    task = vm.site.pvc.json("task", "info", asked)
    assert (task["state"], "longer than which a guest is not kept" in task["error"]) == ("failed", True)
    assert vm.kept() == [[], []]
    assert vm.snapshot("list") == []
    vm.until_agent()


def test_a_guest_goes_on_when_the_daemon_died_while_it_stood_still(web, xfs):
    vm = web("left", counts=False)
    vm.until_agent()
    run(["fsfreeze", "-f", str(xfs)], deadline_s=30).check()
    try:
        asked = vm.site.pvc.json("vm", "snapshot", "create", "left", "s1", "--no-wait")["task"]["id"]
        vm.site.eventually("it stands still", lambda: domain_state(vm) == "paused")
        vm.site.signal("hv2", signal.SIGKILL)
    finally:
        run(["fsfreeze", "-u", str(xfs)], deadline_s=30).check()
    vm.site.eventually("it goes on", lambda: domain_state(vm) == "running")
    vm.site.eventually("the task ends", lambda: vm.site.pvc.json("task", "info", asked)["finished"])
    task = vm.site.pvc.json("task", "info", asked)
    assert task["state"] == "done"
    assert task["result"]["not_frozen"] == "the guest agent found no file systems to freeze"
    assert vm.snapshot("list")[0]["state"] == "complete"
    assert vm.kept() == [["s1"]] * 2
    vm.until_agent()
    assert ">snapshot" not in vm.site.sandbox.exec("hv2", ["virsh", "dumpxml", vm.id]).check().stdout
