"""`pvc vm snapshot`: what people and scripts get."""

import pytest

from pvc_core.testkit.command_line import CommandLine
from pvc_core.testkit.vm_site import VmSite, each


@pytest.fixture
def site():
    return VmSite()


@pytest.fixture
def pvc(site):
    return CommandLine(site.cluster.tree)


def begun(site, ran):
    """Let the task that a command began come to its end."""
    assert ran.status == 0, ran.err
    return site.done(site.task(ran.json()["task"]["id"]))


def make(site, pvc, *more):
    return begun(site, pvc("vm", "snapshot", "create", "web", "s1", "--no-wait", "-f", "json", *more))


def test_no_snapshots(pvc):
    assert pvc("vm", "snapshot", "list").err == "no VM has snapshots\n"
    assert pvc("vm", "snapshot", "list", "web").err == "VM web has no snapshots\n"
    assert pvc("vm", "snapshot", "list", "web", "-f", "json").json() == []


def test_a_snapshot_is_made_and_shown(site, pvc):
    assert make(site, pvc, "-d", "before the upgrade").result["consistency"] == "offline"
    lines = pvc("vm", "snapshot", "list").out.splitlines()
    assert lines[0].split() == ["VM", "SNAPSHOT", "STATE", "CONSISTENCY", "CREATED", "DISKS", "SIZE", "DESCRIPTION"]
    assert lines[1].split()[:4] == ["web", "s1", "complete", "offline"]
    (view,) = pvc("vm", "snapshot", "list", "web", "-f", "json").json()
    assert (view["name"], view["description"]) == ("s1", "before the upgrade")
    shown = pvc("vm", "snapshot", "info", "web", "s1").out
    assert "offline: the VM is off" in shown
    assert "64 MiB, 1 vCPU" in shown
    assert shown.count("present") == 2
    info = pvc("vm", "snapshot", "info", "web", "s1", "-f", "json").json()
    assert [disk["volume"] for disk in info["disks"]] == ["ssd/web-root", "ssd/web-data"]
    assert info["definition"]["memory"] == 64


@pytest.mark.parametrize(("options", "freeze"), [((), "auto"), (("--freeze",), "always"), (("--no-freeze",), "never")])
def test_freezing(site, pvc, options, freeze):
    ran = pvc("vm", "snapshot", "create", "web", "--no-wait", "-f", "json", *options)
    assert ran.json()["task"]["arguments"]["freeze"] == freeze


@pytest.mark.parametrize("command", [("rollback", "web", "s1"), ("delete", "web", "s1"), ("abandon", "web")])
def test_what_cannot_be_undone_is_confirmed(site, pvc, command):
    make(site, pvc)
    ran = pvc("vm", "snapshot", *command)
    assert ran.status == 2
    assert "not done without confirmation; repeat it with --yes" in ran.err
    assert pvc("vm", "snapshot", *command, input="n\n", interactive=True).err.endswith(
        "cancelled: nothing was changed\n"
    )
    assert site.kept() == each("s1")


def test_the_whole_life(site, pvc):
    site.write_all(b"one")
    make(site, pvc)
    site.write_all(b"two")
    begun(site, pvc("vm", "snapshot", "rename", "web", "s1", "s2", "--no-wait", "-f", "json"))
    ran = pvc("vm", "snapshot", "rollback", "web", "s2", "--yes", "--no-wait", "-f", "json")
    assert "vm-snapshot.rollback was given to node hv1" in ran.json()["message"]
    begun(site, ran)
    assert site.contents() == [b"one", b"one"]
    begun(site, pvc("vm", "snapshot", "delete", "web", "s2", "--yes", "--no-wait", "-f", "json"))
    assert site.kept() == each()


def test_a_failed_one_says_why(site, pvc):
    site.faults["hv1"].fail("snapshot_create")
    site.faults["hv1"].fail_always("snapshot_delete")
    ran = pvc("vm", "snapshot", "create", "web", "s1", "--no-wait", "-f", "json")
    site.end(site.task(ran.json()["task"]["id"]))
    lines = pvc("vm", "snapshot", "list").out.splitlines()
    assert "REASON" in lines[0]
    assert "failed" in lines[1]
    assert "creating it was not finished: injected fault in snapshot_create" in lines[1]


def test_an_abandoned_rollback(site, pvc):
    make(site, pvc)
    site.faults["hv1"].lose_answer("snapshot_rollback")
    site.end(site.roll_back())
    assert "not all rolled back" in pvc("vm", "start", "web", "--no-wait").err
    ran = pvc("vm", "snapshot", "abandon", "web", "--yes")
    assert ran.out == "VM web can be started; those of its disks that were rolled back stay so\n"


def test_removing_a_vm_tells_of_its_snapshots(site, pvc):
    make(site, pvc)
    asked = pvc("vm", "remove", "web", input="n\n", interactive=True).err
    assert "(its volumes ssd/web-root, ssd/web-data stay), and forget 1 snapshot of it?" in asked
    assert pvc("vm", "remove", "web", "--yes", "-f", "json").json()["snapshots"] == ["s1"]
