"""The life of a VM on a real cluster: defined, changed, started, shut down, restarted, crashed, removed."""

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

XML = """
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <cputune><shares>512</shares></cputune>
  <devices>
    <disk type='volume' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source pool='{pool}' volume='{name}'/><target dev='vda' bus='virtio'/>
    </disk>
    <interface type='network'><source network='systemtest'/><model type='e1000'/></interface>
  </devices>
</domain>
"""


def booted(cluster, id_, node, times=1):
    cluster.eventually("the guest boots", lambda: cluster.consoles(id_).get(node, "").count("GUEST-UP") >= times)


def test_vm_is_defined_from_yaml_placed_started_and_dumped(cluster, guests):
    name = guests.name()
    guests.volume(name)
    file = guests.definition(name, disks=[{"pool": "systemtest", "volume": name}], nics=[{"network": "systemtest"}])
    before = cluster.names()
    cluster.pvc("vm", "define", file)
    id_ = guests.known(name)
    assert cluster.names() - before == {name}
    assert cluster.view(name)["state"] == "stopped"
    assert cluster.copies(id_) == {}
    cluster.pvc("vm", "start", name)
    state, node = cluster.place(name)
    assert state == "running"
    assert cluster.copies(id_) == {node: "running"}
    booted(cluster, id_, node)
    dumped = cluster.pvc("vm", "dump", name)
    assert f"id: {id_}" in dumped
    assert "mac:" in dumped
    assert cluster.pvc.run("vm", "define", file).returncode == 1


def test_vm_is_defined_from_libvirt_xml_and_what_is_not_modelled_is_kept(cluster, guests, tmp_path):
    name = guests.name()
    guests.volume(name)
    (tmp_path / "vm.xml").write_text(XML.format(name=name, pool="systemtest"))
    cluster.pvc("vm", "define", str(tmp_path / "vm.xml"), "--start")
    id_ = guests.known(name)
    _, node = cluster.place(name)
    booted(cluster, id_, node)
    xml = cluster.sandbox.exec(node, ["virsh", "dumpxml", id_]).stdout
    assert "<shares>512</shares>" in xml
    assert "<model type='e1000'/>" in xml
    assert "<shares>512</shares>" in cluster.pvc("vm", "dump", name)


def test_change_is_shown_as_a_difference_and_reaches_the_guest_with_its_restart(cluster, guests):
    name = guests.boot_sector(node="hv2")
    id_ = cluster.id(name)
    shown = cluster.pvc.run("vm", "modify", name, "--set", "memory=24M", "--dry-run")
    assert shown.returncode == 0
    assert "16" in shown.stderr + shown.stdout
    assert "24" in shown.stderr + shown.stdout
    assert cluster.info(name)["spec"]["memory_mib"] == 16
    waits = cluster.pvc.run("vm", "modify", name, "--set", "memory=24M", "--no-restart")
    assert "pvc vm restart" in waits.stderr
    cluster.eventually(
        "the condition", lambda: [c for c in cluster.info(name)["conditions"] if c["type"] == "Hardware"]
    )
    assert _memory_mib(cluster, id_) == 16
    changed = cluster.pvc.run("vm", "modify", name, "--set", "memory=32M", "--set", "vcpus=2", "--restart")
    assert changed.returncode == 0, changed.stderr
    assert _memory_mib(cluster, id_) == 32
    assert cluster.place(name) == ("running", "hv2")
    assert not [c for c in cluster.info(name)["conditions"] if c["type"] == "Hardware"]
    booted(cluster, id_, "hv2", times=2)


def _memory_mib(cluster, id_):
    fields = cluster.sandbox.exec("hv2", ["virsh", "dominfo", id_]).check().stdout
    line = next(line for line in fields.splitlines() if line.startswith("Max memory"))
    return int(line.split()[2]) // 1024


def test_rename_leaves_the_guest_alone(cluster, guests):
    old = guests.boot_sector(node="hv2")
    id_, new = cluster.id(old), guests.name()
    emulators = cluster.emulators("hv2", id_)
    cluster.pvc("vm", "rename", old, new)
    assert old not in cluster.names()
    assert cluster.id(new) == id_
    cluster.eventually("its node has seen it", lambda: cluster.view(new)["settled"])
    assert cluster.emulators("hv2", id_) == emulators
    cluster.pvc("vm", "restart", new)
    assert cluster.place(new) == ("running", "hv2")


def test_guest_is_asked_to_shut_down_and_stays_down(cluster, guests):
    name = guests.linux(node="hv1", restart="always")
    id_ = cluster.id(name)
    cluster.eventually("the guest is up", lambda: cluster.ticks(id_))
    cluster.pvc("vm", "shutdown", name)
    assert "GUEST-DOWN" in cluster.console(id_)
    assert cluster.place(name) == ("stopped", None)
    assert cluster.copies(id_) == {}
    beats = cluster.ticks(id_)
    cluster.pvc("vm", "start", name)
    cluster.eventually("it counts on from its disk", lambda: len(cluster.ticks(id_)) > len(beats))
    assert cluster.ticks(id_)[-1].number > beats[-1].number


def test_guest_that_ignores_the_request_is_cut_off_when_its_time_is_over(cluster, guests):
    name = guests.boot_sector(node="hv1", deaf=True, shutdown_timeout_s=2)
    id_ = cluster.id(name)
    cluster.pvc("vm", "shutdown", name)
    assert cluster.place(name) == ("stopped", None)
    assert cluster.copies(id_) == {}
    log = cluster.sandbox.logs("hv1")["pvcnoded"].read_text()
    assert f"domain-destroy vm={id_}" in log
    assert "did not shut down within 2 s" in log


def test_stop_restart_and_disable(cluster, guests):
    name = guests.boot_sector(node="hv3")
    id_ = cluster.id(name)
    booted(cluster, id_, "hv3")
    first = cluster.emulators("hv3", id_)
    cluster.pvc("vm", "restart", name)
    booted(cluster, id_, "hv3", times=2)
    assert cluster.emulators("hv3", id_) != first
    cluster.pvc("vm", "stop", name, "--yes")
    assert cluster.place(name) == ("stopped", None)
    assert cluster.copies(id_) == {}
    cluster.pvc("vm", "start", name)
    assert "with force" in cluster.refused("vm", "disable", name)[1]
    cluster.pvc("vm", "disable", name, "--force", "--yes")
    assert cluster.place(name) == ("disabled", None)
    assert cluster.copies(id_) == {}
    cluster.pvc("vm", "start", name)
    assert cluster.place(name) == ("running", "hv3")


def test_running_vm_is_removed_only_by_force_and_its_volumes_only_on_request(cluster, guests):
    name = guests.boot_sector(node="hv2")
    id_ = cluster.id(name)
    status, message = cluster.refused("vm", "remove", name, "--yes")
    assert status == 1
    assert "runs on node hv2" in message
    assert cluster.place(name) == ("running", "hv2")
    cluster.pvc("vm", "remove", name, "--force", "--yes")
    assert name not in cluster.names()
    assert cluster.copies(id_) == {}
    assert volume_exists(cluster, name)
    second = guests.boot_sector(node="hv2", start=False)
    cluster.pvc("vm", "remove", second, "--volumes", "--yes")
    assert second not in cluster.names()
    cluster.eventually("its volume is gone", lambda: not volume_exists(cluster, second))
    assert not list((cluster.sandbox.shared / "systemtest").rglob(f"*{second}*"))


def volume_exists(cluster, name):
    return name in {row["name"] for row in cluster.pvc.json("storage", "volume", "list")}


def test_power_cut_of_a_node_and_its_return_starts_what_ran_and_what_has_autostart(cluster, guests):
    ran = guests.boot_sector(node="hv3")
    auto = guests.boot_sector(node="hv3", start=False, autostart=True)
    off = guests.boot_sector(node="hv3", start=False)
    cluster.sandbox.power_cut("hv3")
    cluster.sandbox.power_on("hv3")
    cluster.sandbox.wait_ready(["hv3"])
    for name in (ran, auto):
        cluster.eventually(f"{name} runs", lambda vm=name: cluster.place(vm) == ("running", "hv3"))
        assert cluster.copies(cluster.id(name)) == {"hv3": "running"}
    assert cluster.place(off) == ("stopped", None)


def test_crashed_guest_is_started_again_until_it_is_given_up_with_a_reason(cluster, guests):
    name = guests.boot_sector(node="hv1")
    id_ = cluster.id(name)
    for crash in (1, 2):
        booted(cluster, id_, "hv1", times=crash)
        cluster.kill_emulator("hv1", id_)
        cluster.eventually(
            "the guest runs again",
            lambda n=crash: cluster.info(name)["status"]["crashes"] == n and cluster.place(name)[0] == "running",
        )
    booted(cluster, id_, "hv1", times=3)
    cluster.kill_emulator("hv1", id_)
    cluster.eventually("it is given up", lambda: cluster.place(name) == ("failed", None))
    reason = cluster.view(name)["reason"]
    assert "crashed" in reason
    assert "gave up after 3 times in a row" in reason
    assert reason in cluster.pvc("vm", "info", name)
    assert cluster.copies(id_) == {}
    cluster.pvc("vm", "start", name)
    assert cluster.place(name) == ("running", "hv1")


def test_guest_that_switches_itself_off_stays_off_when_only_crashes_count(cluster, guests):
    name = guests.boot_sector(node="hv1", restart="on-crash")
    id_ = cluster.id(name)
    booted(cluster, id_, "hv1")
    cluster.sandbox.exec("hv1", ["virsh", "shutdown", id_]).check()
    cluster.eventually("it is stopped", lambda: cluster.place(name) == ("stopped", None))
    assert "shut itself down" in cluster.view(name)["reason"]
    cluster.pvc("vm", "start", name)
    booted(cluster, id_, "hv1", times=2)
    cluster.kill_emulator("hv1", id_)
    cluster.eventually("it runs again", lambda: cluster.console(id_).count("GUEST-UP") == 3)


def test_vm_that_cannot_be_started_says_why_and_is_given_up(cluster, guests):
    name = guests.name()
    guests.volume(name)
    guests.define(
        name,
        node="hv2",
        start=False,
        disks=[{"pool": "systemtest", "volume": name}],
        overlay_xml="<domain><devices><disk type='file'><source file='/nowhere/x.raw'/><target dev='vdz'/></disk></devices></domain>",
    )
    failed = cluster.pvc.run("vm", "start", name)
    assert failed.returncode == 1
    assert "/nowhere/x.raw" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr
    assert cluster.place(name) == ("failed", None)
    assert cluster.info(name)["claim"] is None
    assert cluster.copies(cluster.id(name)) == {}
