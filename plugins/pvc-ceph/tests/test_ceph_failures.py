"""What the driver does when Ceph does not do its part: it says what is wrong, in time, and goes on when that is mended."""

import contextlib
import signal
import time

import pytest

from pvc_ceph.workers import Workers
from pvc_core.plugin import AuthFailed, DriverError, NotReady
from pvc_sandbox.waiting import wait_until

pytestmark = [pytest.mark.real, pytest.mark.ceph, pytest.mark.timeout(180)]

MIB = 1 << 20
OSDS = "ceph-osd@"
MONS = "ceph-mon@"
MGRS = "ceph-mgr@"


@contextlib.contextmanager
def stopped(ceph, kind, nodes):
    """Stop the daemons of this kind on these nodes for a while."""
    hosts = [ceph.host(node) for node in nodes]
    services = [(host, name) for host in hosts for name in host.services() if name.startswith(kind)]
    assert len(services) == len(nodes)
    for host, name in services:
        host.signal_service(name, signal.SIGSTOP)
    try:
        yield
    finally:
        for host, name in services:
            host.signal_service(name, signal.SIGCONT)
        settled(ceph)


def settled(ceph):
    def clean():
        status = ceph.command("status")
        states = {each["state_name"] for each in status["pgmap"]["pgs_by_state"]}
        return status["osdmap"]["num_up_osds"] == 3 and states == {"active+clean"} and len(status["quorum"]) == 3

    wait_until("all of Ceph is well", clean, deadline_s=90)


def until_down(ceph, count):
    wait_until(
        f"{count} OSDs are down", lambda: ceph.command("status")["osdmap"]["num_up_osds"] == 3 - count, deadline_s=60
    )


def test_node_without_its_storage_network_says_so_in_seconds(site, ceph):
    driver = site.driver("hv3")
    assert driver.volume_list(site.pool) == []
    ceph.host("hv3").cut_link()
    try:
        # Its own monitor answers until it notices that it is alone.
        wait_until("nobody answers", lambda: not _works(lambda: driver.pool_usage(site.pool)), deadline_s=60)
        begun = time.monotonic()
        with pytest.raises(NotReady, match=r"monitors did not answer|no monitor of the Ceph cluster answers"):
            driver.pool_usage(site.pool)
        with pytest.raises(NotReady, match=r"no monitor of the Ceph cluster answers within 3 s .*10\.77"):
            site.driver("hv3").storage_preflight()
        assert time.monotonic() - begun < 40
        [told] = driver.health_checks()
        assert (told.type, told.ok, told.reason) == ("Ceph", False, "Unreachable")
    finally:
        ceph.host("hv3").heal_link()
    wait_until("it works again", lambda: _works(lambda: driver.pool_usage(site.pool)), deadline_s=60)
    settled(ceph)


def test_one_monitor_of_three_is_not_missed(site, ceph):
    driver = site.driver("hv1")
    with stopped(ceph, MONS, ["hv2"]):
        wait_until("the quorum has two", lambda: len(_quorum(site)) == 2, deadline_s=60)
        assert driver.volume_create(site.ref("web1"), 4 * MIB, "")
        assert driver.volume_info(site.ref("web1")).size_bytes == 4 * MIB
        wait_until("its node says so", lambda: "CephMonitor" in _wrong(site.driver("hv2")), deadline_s=60)
        assert "CephMonitor" not in _wrong(site.driver("hv1"))


def test_a_manager_that_works_no_more_is_told_by_its_node(site, ceph):
    with stopped(ceph, MGRS, ["hv2"]):
        wait_until("its node says so", lambda: "CephManager" in _wrong(site.driver("hv2")), deadline_s=60)
        assert "CephManager" not in _wrong(site.driver("hv1"))
    wait_until("it is back", lambda: "CephManager" not in _wrong(site.driver("hv2")), deadline_s=60)


def test_without_a_quorum_nothing_waits_for_ever(site, ceph):
    driver = site.driver("hv1")
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    with stopped(ceph, MONS, ["hv1", "hv2"]):
        # As long as a monitor's lease lasts it answers.
        wait_until("nobody answers", lambda: not _works(lambda: driver.pool_usage(site.pool)), deadline_s=60)
        begun = time.monotonic()
        with pytest.raises(NotReady, match="monitor"):
            driver.pool_usage(site.pool)
        with pytest.raises(NotReady, match="monitor"):
            site.driver("hv3").volume_create(site.ref("web2"), 4 * MIB, "")
        assert time.monotonic() - begun < 60
    wait_until(
        "it works again", lambda: _works(lambda: driver.volume_create(site.ref("web2"), 4 * MIB, "")), deadline_s=60
    )


def test_one_osd_of_three_is_not_missed(site, ceph):
    driver = site.driver("hv1")
    with stopped(ceph, OSDS, ["hv2"]):
        until_down(ceph, 1)
        assert driver.volume_create(site.ref("web1"), 4 * MIB, "")
        site.write("web1", b"contents")
        assert site.read("web1", 0, 8) == b"contents"
        assert [each.message for each in site.driver("hv2").health_checks() if each.type == "CephOsds"] == [
            "osd.1 of this node is down"
        ]


def test_below_mincopies_a_call_ends_in_time_and_says_why(site, ceph):
    driver = site.driver("hv1")
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    with stopped(ceph, OSDS, ["hv2", "hv3"]):
        until_down(ceph, 2)
        begun = time.monotonic()
        with pytest.raises(
            NotReady, match=r"did not carry out volume-info within 6.5 s: .*(PG_AVAILABILITY|OSD_DOWN|OSD_HOST_DOWN)"
        ):
            driver.volume_info(site.ref("web1"))
        assert time.monotonic() - begun < 20
        # Another call is not concerned by the one that was killed.
        assert driver.pool_usage(site.pool).total_bytes > 0
        conditions = wait_until("a monitor leads", lambda: _whole(site), deadline_s=30)
        assert conditions[0].reason in ("Warning", "Error")
    assert driver.volume_info(site.ref("web1")).size_bytes == 4 * MIB


def test_osds_that_hang_do_not_hang_the_driver(site, ceph):
    driver = site.driver("hv1")
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    with stopped(ceph, OSDS, ["hv1", "hv2", "hv3"]):
        begun = time.monotonic()
        with pytest.raises(NotReady, match=r"did not carry out disk-attachments within 6\.5 s"):
            driver.disk_attachments()
        assert time.monotonic() - begun < 20
    wait_until("it works again", lambda: _works(lambda: driver.volume_info(site.ref("web1"))), deadline_s=60)


def test_full_pool_is_named(site, ceph):
    driver = site.driver("hv1")
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    site.write("web1", b"contents" * 1024)
    driver.snapshot_create(site.ref("web1"), "s1")
    before = ceph.command("osd dump")
    ratios = {name: before[f"{name}_ratio"] for name in ("nearfull", "backfillfull", "full")}
    for name in ratios:
        ceph.command(f"osd set-{name}-ratio", ratio=0.0001)
    try:
        wait_until("Ceph is full", lambda: "OSD_FULL" in ceph.command("health")["checks"], deadline_s=60)
        # The manager measures every second.
        wait_until("nothing is free", lambda: driver.pool_usage(site.pool).free_bytes == 0, deadline_s=30)
        with pytest.raises(DriverError, match=r"there is no room"):
            driver.volume_create(site.ref("web2"), 4 * MIB, "")
        assert driver.snapshot_delete(site.ref("web1"), "s1")
        assert driver.volume_delete(site.ref("web1"))
        assert driver.volume_list(site.pool) == []
    finally:
        for name in reversed(ratios):
            ceph.command(f"osd set-{name}-ratio", ratio=ratios[name])
        wait_until("Ceph has room", lambda: "OSD_FULL" not in ceph.command("health")["checks"], deadline_s=60)
    assert driver.volume_create(site.ref("web2"), 4 * MIB, "")


def test_key_that_ceph_refuses_is_named(site):
    keyring = site.directory / "keyring"
    keyring.write_text("[client.admin]\n\tkey = AQCNxwxr0+J3FhAAzfG/wWyqHnuG8/c9Ug4GRQ==\n")
    with pytest.raises(AuthFailed, match=rf"Ceph refuses the key of client\.admin; it is read from {keyring}"):
        site.driver("hv1", keyring=str(keyring)).storage_preflight()
    with pytest.raises(AuthFailed, match=r"client\.nobody"):
        site.driver("hv1", user="nobody").storage_preflight()
    [told] = site.driver("hv1", keyring=str(keyring)).health_checks()
    assert (told.type, told.ok, told.reason) == ("Ceph", False, "Refused")


def test_worker_that_dies_while_it_is_idle_is_not_missed(site, monkeypatch):
    driver = site.driver("hv1")
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    died = _let_die(monkeypatch, lambda fresh: not fresh)
    assert driver.volume_info(site.ref("web1")).size_bytes == 4 * MIB
    assert len(died) == 1


def test_worker_that_dies_at_work_costs_one_call(site, monkeypatch):
    driver = site.driver("hv1")
    driver.volume_create(site.ref("web1"), 4 * MIB, "")
    with monkeypatch.context() as patched:
        _let_die(patched, lambda _fresh: True)
        with pytest.raises(DriverError, match="the process that talks to Ceph ended"):
            driver.volume_info(site.ref("web1"))
    assert driver.volume_info(site.ref("web1")).size_bytes == 4 * MIB


def _let_die(monkeypatch, which):
    """Kill workers as soon as they are taken; return the list of those that were."""
    taken, died = Workers._take, []

    def take(self):
        worker, fresh = taken(self)
        if which(fresh):
            worker._process.kill()
            worker._process.wait()
            died.append(worker)
        return worker, fresh

    monkeypatch.setattr(Workers, "_take", take)
    return died


def _works(call):
    try:
        return bool(call())
    except NotReady:
        return False


def _quorum(site):
    return site.ceph.command("quorum_status")["quorum"]


def _wrong(driver):
    return {each.type for each in driver.health_checks() if not each.ok}


def _whole(site):
    """Return what the node with the leading monitor tells of the whole cluster."""
    told = [each for node in ("hv1", "hv2", "hv3") for each in site.driver(node).health_checks()]
    return [each for each in told if each.type == "CephHealth"]
