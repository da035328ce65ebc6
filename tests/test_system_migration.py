"""Moving guests between the nodes of a real cluster."""

import re

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

# libvirt migrates no guest that shares memory with others on its host.
UNMOVABLE = "<domain><devices><shmem name='{name}'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem></devices></domain>"
OCTET = 40


@pytest.fixture(scope="module")
def linux(cluster, module_guests):
    """A Linux guest that answers ping and counts on its disk."""
    name = module_guests.linux(node="hv1", octet=OCTET)
    cluster.eventually("the guest counts", lambda: cluster.ticks(cluster.id(name)))
    return name


def others(cluster, node):
    return [name for name in cluster.sandbox.nodes() if name != node]


def gone_on(cluster, id_, node):
    """Wait until the guest beats on a node; return all its beats."""
    seen = len(cluster.consoles(id_).get(node, ""))
    cluster.eventually(
        f"the guest beats on {node}", lambda: cluster.consoles(id_).get(node, "")[seen:].count("tick") >= 2
    )
    return cluster.ticks(id_)


def test_guest_answers_ping_and_counts_on_while_it_is_moved_live(cluster, linux):
    from pvc_sandbox.ping import Ping, answers

    id_, source = cluster.id(linux), cluster.view(linux)["running_on"]
    target = others(cluster, source)[0]
    layout = cluster.sandbox.layout
    cluster.eventually("the guest answers ping", lambda: answers(layout, layout.guest_address(OCTET)))
    with Ping(layout, layout.guest_address(OCTET)) as ping:
        cluster.eventually("answers", lambda: ping.answers() >= 10)
        cluster.pvc("vm", "move", linux, "--node", target)
        assert cluster.copies(id_) == {target: "running"}
        before = ping.answers()
        cluster.eventually("answers afterwards", lambda: ping.answers() >= before + 10)
    moved = cluster.info(linux)["last_migration"]
    seen = ping.result
    print(
        f"live migration: {moved['duration_s']:.2f} s, {moved['downtime_ms']} ms down as libvirt says; ping: "
        f"{seen.asked - seen.answered} of {seen.asked} lost, longest gap {seen.longest_gap_s:.2f} s"
    )
    assert (moved["source"], moved["target"], moved["method"], moved["ok"]) == (source, target, "live", True)
    assert seen.longest_gap_s < 3
    beats = gone_on(cluster, id_, target)
    numbers = [beat.number for beat in beats]
    assert numbers == sorted(set(numbers)), "two copies of the guest counted"
    assert [beat.uptime_s for beat in beats] == sorted(beat.uptime_s for beat in beats), "the guest began anew"
    assert cluster.console(id_).count("GUEST-UP") == 1


def test_log_is_followed_to_the_node_that_a_guest_moves_to(cluster, linux, tmp_path):
    id_, source = cluster.id(linux), cluster.view(linux)["running_on"]
    target = others(cluster, source)[0]
    output = tmp_path / "log"
    with output.open("wb") as file, cluster.start_command("vm", "log", linux, "-f", stdout=file, stderr=file) as follow:
        try:
            cluster.eventually("the log", lambda: b"tick" in output.read_bytes())
            cluster.pvc("vm", "move", linux, "--node", target)
            last = gone_on(cluster, id_, target)[-1].number
            cluster.eventually("the beat from its new node", lambda: f"tick {last}".encode() in output.read_bytes())
        finally:
            follow.terminate()
    assert f"is on {target} now" in output.read_text()
    assert f"tick {last}" in cluster.pvc("vm", "log", linux)


def test_guest_moved_by_shutdown_goes_down_in_order_and_starts_there(cluster, guests):
    name = guests.boot_sector(node="hv1")
    id_ = cluster.id(name)
    first = cluster.emulators("hv1", id_)
    cluster.pvc("vm", "move", name, "--node", "hv2", "--method", "shutdown")
    assert cluster.place(name) == ("running", "hv2")
    assert cluster.copies(id_) == {"hv2": "running"}
    assert first
    assert "domain-destroy vm=" + id_ not in cluster.sandbox.logs("hv1")["pvcnoded"].read_text()


def test_move_that_cannot_be_live_is_done_by_shutdown_when_the_method_allows_it(cluster, guests):
    name = guests.name()
    guests.volume(name)
    guests.define(
        name,
        node="hv1",
        disks=[{"pool": "systemtest", "volume": name}],
        overlay_xml=UNMOVABLE.format(name=name),
    )
    id_ = cluster.id(name)
    cluster.pvc("vm", "move", name, "--node", "hv2")
    assert cluster.place(name) == ("running", "hv2")
    assert cluster.copies(id_) == {"hv2": "running"}
    cluster.eventually("it boots there", lambda: "GUEST-UP" in cluster.consoles(id_).get("hv2", ""))


def test_move_that_must_be_live_is_given_up_with_the_reason_and_the_guest_goes_on(cluster, guests):
    name = guests.name()
    guests.volume(name)
    guests.define(
        name,
        node="hv1",
        migration="live",
        disks=[{"pool": "systemtest", "volume": name}],
        overlay_xml=UNMOVABLE.format(name=name),
    )
    id_ = cluster.id(name)
    emulators = cluster.emulators("hv1", id_)
    failed = cluster.pvc.run("vm", "move", name, "--node", "hv2")
    assert failed.returncode == 1
    said = failed.stderr.splitlines()[-1]
    assert "was given up, it stays on hv1" in said
    assert "shmem" in said
    assert cluster.place(name) == ("running", "hv1")
    assert cluster.view(name)["node"] == "hv1"
    assert cluster.copies(id_) == {"hv1": "running"}
    assert cluster.emulators("hv1", id_) == emulators
    assert "shmem" in cluster.info(name)["last_migration"]["message"]


def test_live_only_move_to_a_node_without_libvirt_is_given_up_and_nothing_is_left(cluster, guests):
    name = guests.boot_sector(node="hv1", migration="live")
    id_ = cluster.id(name)
    cluster.sandbox.host("hv3").stop_service("libvirtd")
    try:
        failed = cluster.pvc.run("vm", "move", name, "--node", "hv3")
    finally:
        cluster.sandbox.power_on("hv3")
    assert failed.returncode == 1
    # The target says so when it is asked; the request itself is refused when the node has already reported it.
    assert re.search("hv3.*(libvirt|hypervisor)", failed.stderr.splitlines()[-1])
    assert cluster.place(name) == ("running", "hv1")
    assert cluster.copies(id_) == {"hv1": "running"}
    cluster.eventually("hv3 works again", lambda: not cluster.node("hv3")["problems"])
    cluster.pvc("vm", "move", name, "--node", "hv3")
    assert cluster.copies(id_) == {"hv3": "running"}


def test_move_makes_a_new_home_and_migrate_remembers_the_old_one(cluster, guests):
    name = guests.boot_sector(node="hv1")
    cluster.pvc("vm", "migrate", name, "--node", "hv2")
    assert (cluster.view(name)["running_on"], cluster.view(name)["home"]) == ("hv2", "hv1")
    assert "hv1" in cluster.refused("vm", "migrate", name, "--node", "hv3")[1]
    cluster.pvc("vm", "migrate", name, "--node", "hv3", "--force")
    assert (cluster.view(name)["running_on"], cluster.view(name)["home"]) == ("hv3", "hv1")
    cluster.pvc("vm", "unmigrate", name)
    assert (cluster.view(name)["running_on"], cluster.view(name)["home"]) == ("hv1", None)
    cluster.pvc("vm", "migrate", name, "--node", "hv2")
    cluster.pvc("vm", "move", name, "--node", "hv3")
    assert (cluster.view(name)["running_on"], cluster.view(name)["home"]) == ("hv3", None)
    assert cluster.refused("vm", "unmigrate", name)[0] in (1, 2)


def test_guest_crashing_after_its_move_is_restarted_where_it_is(cluster, guests):
    name = guests.boot_sector(node="hv1")
    id_ = cluster.id(name)
    cluster.pvc("vm", "move", name, "--node", "hv2")
    cluster.kill_emulator("hv2", id_)
    cluster.eventually("it boots", lambda: "GUEST-UP" in cluster.consoles(id_).get("hv2", ""))
    assert cluster.copies(id_) == {"hv2": "running"}
