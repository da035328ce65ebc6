"""The node daemon on a real cluster: stopped, killed, hung, cut off; guests go on through all of it."""

import signal
import time

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

LEASE_S = 10.0
DAEMON, SERVER = "pvcnoded", "zookeeper"


class Site:
    def __init__(self, sandbox, eventually):
        self.sandbox = sandbox
        self.pvc = sandbox.pvc
        self.eventually = eventually
        self.ids = {}

    def info(self, node):
        return self.pvc.json("node", "info", node)

    def lease(self, node):
        return self.info(node)["lease"]

    def leases(self):
        return {node: self.lease(node) for node in self.sandbox.nodes()}

    def primary(self):
        return next((row["name"] for row in self.pvc.rows("node", "list") if row["primary"]), None)

    def service(self, node, name=DAEMON):
        return self.sandbox.host(node).services()[name]

    def signal(self, node, number, name=DAEMON):
        self.sandbox.host(node).signal_service(name, number)

    def log(self, node):
        return self.sandbox.logs(node)[DAEMON].read_text(encoding="utf-8", errors="replace")

    def qemu(self, node, vm):
        """Process ids of the guest's emulators on the node."""
        id_ = self.pvc.json("vm", "info", vm)["view"]["id"] if vm not in self.ids else self.ids[vm]
        self.ids[vm] = id_
        return self.sandbox.exec(node, ["pgrep", "-f", f"qemu-system.* -uuid {id_}"]).stdout.split()

    def state(self, vm):
        view = self.pvc.json("vm", "info", vm)["view"]
        return view["state"], view["running_on"]


@pytest.fixture(scope="module")
def site(sandbox, eventually):
    return Site(sandbox, eventually)


@pytest.fixture
def vm(site, tmp_path, request):
    """A guest that runs on hv2."""
    name = f"guest-{request.node.name.removeprefix('test_')[:40].strip('_')}".replace("_", "-")
    (tmp_path / "vm.yml").write_text(f"name: {name}\nmemory: 64M\nvcpus: 1\n")
    site.pvc("vm", "define", str(tmp_path / "vm.yml"), "-t", "hv2", "--start")
    yield name
    site.pvc("vm", "remove", name, "--force", "--yes")


@pytest.fixture(autouse=True)
def whole(site):
    """Every test begins and ends with three daemons at work."""
    yield
    for node in site.sandbox.nodes():
        for name in (SERVER, DAEMON):
            if site.service(node, name).pid:
                site.signal(node, signal.SIGCONT, name)
    site.sandbox.wait_ready()
    site.eventually("every lease", lambda: all(row["alive"] for row in site.pvc.rows("node", "list")))


def restart(site, node):
    """Start the daemon again as the sandbox itself does at power on."""
    from pvc_sandbox import cluster

    sandbox = site.sandbox
    number = sandbox.layout.node_number(node)
    service = next(s for s in cluster.node_services(sandbox.layout, sandbox.plan, number) if s.name == DAEMON)
    sandbox.host(node).start_service(service)


def test_an_orderly_stop_gives_the_lease_up_and_a_start_adopts_the_guests(site, vm):
    emulator = site.qemu("hv2", vm)
    assert len(emulator) == 1
    before = site.lease("hv2")
    begun = time.monotonic()
    site.sandbox.host("hv2").stop_service(DAEMON)
    assert time.monotonic() - begun < 10
    assert site.service("hv2").last_exit == "exit status 0"
    info = site.info("hv2")
    assert info["lease"] is None
    assert info["row"]["daemon"] == "stopped"
    assert site.qemu("hv2", vm) == emulator
    restart(site, "hv2")
    site.sandbox.wait_ready(["hv2"])
    assert site.lease("hv2") == before + 1
    site.eventually("adoption", lambda: site.state(vm) == ("running", "hv2"))
    assert site.qemu("hv2", vm) == emulator
    assert site.pvc.json("vm", "info", vm)["claim"]["lease"] == before + 1


def test_a_killed_daemon_is_back_within_seconds_with_its_guests_and_nobody_calls_it_lost(site, vm):
    emulator = site.qemu("hv2", vm)
    before = site.lease("hv2")
    begun = time.monotonic()
    site.signal("hv2", signal.SIGKILL)
    site.eventually("a new lease", lambda: site.lease("hv2") == before + 1, 20)
    took = time.monotonic() - begun
    assert took < LEASE_S, f"it took {took:.1f} s: the dead daemon's lease was waited for"
    site.eventually("adoption", lambda: site.pvc.json("vm", "info", vm)["claim"]["lease"] == before + 1)
    assert site.state(vm) == ("running", "hv2")
    assert site.qemu("hv2", vm) == emulator


def test_a_stopped_primary_hands_the_role_over_at_once(site):
    primary = site.primary()
    begun = time.monotonic()
    site.sandbox.host(primary).stop_service(DAEMON)
    new = site.eventually("another primary", lambda: site.primary() not in (None, primary) and site.primary())
    took = time.monotonic() - begun
    print(f"primary role after an orderly stop: {took:.1f} s")
    assert took < 10
    assert new != primary
    restart(site, primary)


def test_a_dead_primary_is_replaced_a_lease_time_later(site):
    primary = site.primary()
    term = primary_term(site)
    host = site.sandbox.host(primary)
    begun = time.monotonic()
    site.sandbox.power_cut(primary)
    site.eventually("another primary", lambda: primary_term(site) > term, 60)
    took = time.monotonic() - begun
    print(f"primary role after a power cut: {took:.1f} s")
    assert took < LEASE_S + 8
    site.sandbox.power_on(primary)
    site.sandbox.wait_ready()
    assert host.running
    assert site.primary() != primary


def primary_term(site):
    status = site.pvc.run("--format", "json", "cluster", "status")
    import json

    return json.loads(status.stdout)["primary"]["term"] if status.returncode == 0 else -1


def test_the_role_moves_on_request(site):
    target = next(node for node in site.sandbox.nodes() if node != site.primary())
    begun = time.monotonic()
    site.pvc("node", "primary", target)
    site.eventually("the move", lambda: site.primary() == target)
    print(f"primary role on request: {time.monotonic() - begun:.1f} s")
    site.pvc("node", "secondary", target)
    site.eventually("another one", lambda: site.primary() not in (None, target))


def test_a_hung_primary_is_replaced_and_knows_it_when_it_goes_on(site):
    primary = site.primary()
    site.signal(primary, signal.SIGSTOP)
    site.eventually("another primary", lambda: site.primary() not in (None, primary), 60)
    site.signal(primary, signal.SIGCONT)
    site.eventually("relinquished", lambda: "primary-relinquishing" in site.log(primary))
    site.eventually("its lease", lambda: site.lease(primary) is not None)
    assert site.primary() != primary


def test_no_lease_is_lost_when_one_zookeeper_server_is_killed(site):
    before = site.leases()
    for node in site.sandbox.nodes():
        site.signal(node, signal.SIGKILL, SERVER)
        # Longer than a lease: a session that was not kept would be gone by then.
        hold(lambda: site.leases() == before, LEASE_S + 3)
        site.eventually("the server's return", lambda n=node: site.service(n, SERVER).pid)
    assert site.leases() == before


def test_no_lease_is_lost_when_one_zookeeper_server_hangs(site):
    before = site.leases()
    site.signal("hv1", signal.SIGSTOP, SERVER)
    hold(lambda: site.leases() == before, 2 * LEASE_S)
    site.signal("hv1", signal.SIGCONT, SERVER)
    assert site.leases() == before


def hold(condition, seconds):
    """Look for so long, and demand that the condition holds each time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert condition()
        time.sleep(0.5)


def test_guests_go_on_while_the_whole_store_is_gone_and_work_goes_on_afterwards(site, vm):
    emulator = site.qemu("hv2", vm)
    before = site.leases()
    for node in site.sandbox.nodes():
        site.signal(node, signal.SIGSTOP, SERVER)
    hold(lambda: site.qemu("hv2", vm) == emulator, 2 * LEASE_S)
    for node in site.sandbox.nodes():
        assert site.service(node).pid, f"the daemon of {node} ended"
        site.signal(node, signal.SIGCONT, SERVER)
    site.eventually("all leases", lambda: all(row["alive"] for row in site.pvc.rows("node", "list")) and site.leases())
    assert site.qemu("hv2", vm) == emulator
    assert site.leases().keys() == before.keys()
    site.pvc("vm", "move", vm, "-t", "hv3")
    assert site.state(vm) == ("running", "hv3")


def test_a_daemon_without_libvirt_stays_up_and_says_so(site, vm):
    host = site.sandbox.host("hv2")
    emulator = site.qemu("hv2", vm)
    pid = site.service("hv2").pid
    host.stop_service("libvirtd")
    problem = site.eventually(
        "the condition",
        lambda: [c for c in site.info("hv2")["conditions"] if c["type"] == "Hypervisor" and not c["ok"]],
    )
    assert "does not answer" in problem[0]["message"]
    assert site.service("hv2").pid == pid
    assert site.info("hv2")["row"]["alive"]
    from pvc_sandbox import libvirtd

    host.start_service(libvirtd.service(site.sandbox.layout, host.number))
    site.eventually("libvirt's return", lambda: not site.info("hv2")["row"]["problems"] or healthy(site, "hv2"))
    assert site.qemu("hv2", vm) == emulator
    site.eventually("the guest", lambda: site.state(vm) == ("running", "hv2"))


def healthy(site, node):
    return all(c["ok"] for c in site.info(node)["conditions"] if c["type"] == "Hypervisor")
