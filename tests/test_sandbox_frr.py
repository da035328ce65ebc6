"""FRR in simulated hosts, and the router outside: all real."""

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pvc_sandbox import frr, links, systemctl
from pvc_sandbox.boot import Equipment
from pvc_sandbox.host import Host
from pvc_sandbox.router import ASN, CLUSTER_ASN, INTERNET, INTERNET6, Router
from pvc_sandbox.sandbox import Sandbox
from pvc_sandbox.waiting import wait_until

pytestmark = pytest.mark.real

PROGRAMS = "/usr/lib/frr/"
CONFIGURATION = """\
frr defaults traditional
service integrated-vtysh-config
!
router bgp {cluster}
 bgp router-id {address}
 no bgp ebgp-requires-policy
 bgp graceful-restart-disable
 neighbor {router} remote-as {outside}
 neighbor {router} timers 1 3
 neighbor {router} timers connect 1
 neighbor {router6} remote-as {outside}
 neighbor {router6} timers 1 3
 neighbor {router6} timers connect 1
 !
 address-family ipv4 unicast
  network 192.168.{number}.0/24
  no neighbor {router6} activate
 exit-address-family
 !
 address-family ipv6 unicast
  network 2001:db8:{number}::/64
  neighbor {router6} activate
 exit-address-family
exit
!
"""


class Lab:
    """Three hosts with FRR, and the router."""

    def __init__(self, directory):
        self.layout = Host(directory, 1).layout
        self.hosts = [Host(self.layout, number) for number in (1, 2, 3)]
        self.router = Router(self.layout)

    def start(self, host):
        layout, number = self.layout, host.number
        frr.configure_node(layout, number)
        systemctl.install(systemctl.programs(layout, number), host.state)
        host.start(equipment=Equipment(binds=frr.node_binds(layout, number), router=True))

    def systemctl(self, host, *words):
        return host.exec([str(systemctl.programs(self.layout, host.number) / "systemctl"), *words])

    def configuration(self, number):
        layout = self.layout
        return CONFIGURATION.format(
            number=number,
            address=layout.upstream_address(number),
            router=self.router.address,
            router6=self.router.address6,
            outside=ASN,
            cluster=CLUSTER_ASN,
        )


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    made = Lab(tmp_path_factory.mktemp("frr"))
    try:
        links.make_switch(made.layout)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(made.start, made.hosts))
        made.router.start()
        for host in made.hosts:
            wait_until(f"FRR of {host.name}", lambda host=host: host.services()["frr"].ready, deadline_s=20)
        yield made
    finally:
        for host in made.hosts:
            host.destroy()
    assert not links.namespace_exists(made.layout.router)
    assert not links.switch_exists(made.layout)
    assert not made.layout.run.exists()
    assert processes("bird", str(made.layout.run)) == []
    assert list(Path(made.layout.state).iterdir()) == []


@pytest.fixture
def host(lab):
    yield lab.hosts[0]
    lab.start(lab.hosts[0])
    assert lab.systemctl(lab.hosts[0], "start", "frr").returncode == 0


def processes(*words):
    """PIDs, on this machine, of what has all these words in its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes().decode(errors="replace")
            if all(word in command for word in words):
                found.append(int(path.parent.name))
    return found


def of_frr(host):
    """Every process of FRR on a host: its name -> PID there."""
    done = host.exec(
        ["sh", "-c", f"ps -eo pid=,stat=,args= | awk '$2 !~ /Z/ && $3 ~ \"^{PROGRAMS}\" {{ print $1, $3 }}'"]
    )
    return {Path(program).name: int(pid) for pid, program in map(str.split, done.check().stdout.splitlines())}


def vtysh(host, *commands):
    return host.exec(["vtysh", *(word for command in commands for word in ("-c", command))])


def test_daemons_run_from_boot_on_under_watchfrr(lab):
    for host in lab.hosts:
        assert set(of_frr(host)) == {"watchfrr", "zebra", "bgpd", "staticd"}
        assert lab.systemctl(host, "is-active", "frr").stdout == "active\n"
        assert lab.systemctl(host, "is-enabled", "frr").stdout == "enabled\n"
        done = vtysh(host, "show version")
        assert (done.returncode, done.stderr) == (0, "")
        assert "FRRouting 8" in done.stdout and f"({host.name})" in done.stdout
        assert (
            host.exec(["stat", "-c", "%U:%G %a", "/etc/frr/daemons", "/etc/frr"]).stdout == "frr:frr 640\nfrr:frr 750\n"
        )


def test_unit_is_stopped_started_and_restarted(lab, host):
    first = of_frr(host)
    assert lab.systemctl(host, "stop", "frr").returncode == 0
    assert of_frr(host) == {}
    done = lab.systemctl(host, "is-active", "frr")
    assert (done.returncode, done.stdout) == (3, "inactive\n")
    assert lab.systemctl(host, "reload", "frr").returncode == 1
    assert lab.systemctl(host, "start", "frr").returncode == 0
    assert vtysh(host, "show version").returncode == 0
    second = of_frr(host)
    assert set(second) == set(first)
    assert lab.systemctl(host, "restart", "frr.service").returncode == 0
    third = of_frr(host)
    assert set(third) == set(second)
    assert not set(third.values()) & set(second.values())
    assert host.services()["frr"].ready


def test_what_was_disabled_stays_off_at_the_next_boot(lab, host):
    assert lab.systemctl(host, "disable", "frr").returncode == 0
    host.power_cut()
    lab.start(host)
    assert "frr" not in host.services()
    assert lab.systemctl(host, "is-active", "frr").stdout == "inactive\n"
    assert lab.systemctl(host, "enable", "frr").returncode == 0


def test_daemon_that_is_killed_is_back(lab, host):
    before = of_frr(host)
    host.exec(["kill", "-9", str(before["bgpd"])]).check()
    wait_until("bgpd is back", lambda: of_frr(host).get("bgpd") not in (None, before["bgpd"]), deadline_s=10)
    wait_until(
        "it answers", lambda: host.exec(["vtysh", "-d", "bgpd", "-c", "show version"]).returncode == 0, deadline_s=5
    )
    after = of_frr(host)
    assert after["zebra"] == before["zebra"]
    assert host.services()["frr"].starts == 1 or after["watchfrr"] == before["watchfrr"]


@pytest.mark.parametrize("victim", ["watchfrr", "service"])
def test_service_begins_anew_when_its_head_is_killed(lab, host, victim):
    before = of_frr(host)
    starts = host.services()["frr"].starts
    head = before["watchfrr"] if victim == "watchfrr" else host.services()["frr"].pid
    host.exec(["kill", "-9", str(head)]).check()
    wait_until(
        "FRR is new",
        lambda: (state := host.services()["frr"]).starts > starts and state.ready,
        deadline_s=20,
    )
    after = of_frr(host)
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())


def test_configuration_is_reloaded_and_kept(lab, host):
    path = host.state / "etc/frr/frr.conf"
    bgpd = of_frr(host)["bgpd"]
    path.write_text(
        "frr defaults traditional\nservice integrated-vtysh-config\n!\nip prefix-list kept seq 5 permit any\n!\n"
    )
    done = lab.systemctl(host, "reload", "frr")
    assert (done.returncode, done.stderr) == (0, "")
    assert "ip prefix-list kept seq 5 permit any" in vtysh(host, "show running-config").stdout
    assert of_frr(host)["bgpd"] == bgpd
    assert host.services()["frr"].ready, "watchfrr is another process now, but the service goes on"
    host.power_cut()
    lab.start(host)
    wait_until("FRR is up", lambda: host.services()["frr"].ready, deadline_s=20)
    assert "ip prefix-list kept seq 5 permit any" in vtysh(host, "show running-config").stdout


def test_configuration_that_cannot_be_is_told_by_reload(lab, host):
    path = host.state / "etc/frr/frr.conf"
    before = path.read_text()
    path.write_text("nonsense of somebody\n")
    done = lab.systemctl(host, "reload", "frr")
    path.write_text(before)
    assert done.returncode == 1
    assert "frr did not reload" in done.stderr


def test_power_cut_leaves_no_daemon_and_boots_clean(lab, host):
    inside = host.exec(["readlink", "/proc/self/ns/pid"]).stdout.strip()
    assert len(living_in(inside)) > len(of_frr(host))
    host.power_cut()
    assert living_in(inside) == []
    lab.start(host)
    wait_until("FRR is up", lambda: host.services()["frr"].ready, deadline_s=20)
    assert host.services()["frr"].starts == 1


def living_in(namespace):
    """What lives in a PID namespace; dead processes that nobody has reaped yet do not."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str((path / "ns/pid").readlink()) == namespace and (path / "cmdline").read_bytes():
                found.append(path)
    return found


def test_router_learns_what_a_host_announces_and_forgets_it_when_its_power_is_cut(lab, host):
    layout, router = lab.layout, lab.router
    # Otherwise the router keeps the routes of a host that is lost; frr-reload.py cannot set it in a new instance.
    assert vtysh(host, "configure", f"router bgp {CLUSTER_ASN}", "bgp graceful-restart-disable").returncode == 0
    new = host.run / "new.conf"
    new.write_text(lab.configuration(1))
    done = host.exec(["/usr/lib/frr/frr-reload.py", "--reload", "/run/new.conf"])
    assert (done.returncode, done.stderr) == (0, "")
    host.exec(["ip", "address", "add", "192.168.1.1/24", "dev", "lo"]).check()
    host.exec(["ip", "address", "add", "2001:db8:1::1/64", "dev", "lo", "nodad"]).check()
    wanted = {"192.168.1.0/24": (layout.upstream_address(1),)}
    wait_until("the route is there", lambda: wanted.items() <= router.routes().items(), deadline_s=15)
    wait_until("the route for IPv6 too", lambda: "2001:db8:1::/64" in router.routes(), deadline_s=15)
    assert pings(lab.hosts[1], "192.168.1.1"), "another host gets there through the router"
    assert pings(lab.hosts[1], "2001:db8:1::1")
    assert router.exec(["ping", "-c", "1", "-W", "2", "192.168.1.1"]).returncode == 0
    host.power_cut()
    wait_until("the routes are gone", lambda: router.routes() == {}, deadline_s=15)


def pings(source, address):
    return source.exec(["ping", "-c", "1", "-W", "2", address]).returncode == 0


def test_hosts_reach_each_other_and_the_internet_by_both_protocols(lab):
    first, second, layout = lab.hosts[0], lab.hosts[1], lab.layout
    for address in (
        second.address, layout.cluster_address6(2), layout.upstream_address(2), layout.upstream_address6(2),
        layout.cluster_address6(), layout.upstream_address(), INTERNET, INTERNET6,
    ):  # fmt: skip
        assert pings(first, address), address


def test_cut_to_the_upstream_network_alone(lab, host):
    host.cut_link([links.UPSTREAM])
    assert host.exec(["ping", "-c", "1", "-W", "1", INTERNET]).returncode != 0
    assert pings(host, lab.layout.cluster_address6(2))
    host.power_cut()
    host.boot()
    wait_until("FRR is up", lambda: host.services().get("frr") and host.services()["frr"].ready, deadline_s=20)
    host.heal_link()
    wait_until("it is back", lambda: pings(host, INTERNET) and pings(host, INTERNET6), deadline_s=10)


def test_router_that_was_killed_is_started_again(lab):
    (bird,) = processes("bird", str(lab.layout.router_run))
    os.kill(bird, 9)
    wait_until("it is gone", lambda: not lab.router.running, deadline_s=5)
    lab.router.start()
    lab.router.start()
    assert len(processes("bird", str(lab.layout.router_run))) == 1
    lab.router.stop()
    lab.router.stop()
    assert not lab.router.running
    lab.router.start()
    assert pings(lab.hosts[0], INTERNET)


UP = "import sys; from pvc_sandbox.sandbox import Sandbox; Sandbox(sys.argv[1]).up(nodes=1, bmc=False, network='vxlan')"


@pytest.fixture
def name():
    made = f"frr-{os.getpid()}"
    yield made
    Sandbox(made).down()
    assert leftovers(made) == []


def leftovers(name):
    roots = ("/run/pvc-sandbox", "/var/lib/pvc-sandbox", "/run/netns")
    found = [str(path) for root in roots for path in Path(root).glob(f"*{name}*")]
    return found + processes(f"/{name}/")


def test_cluster_with_managed_networks_has_it_all_and_goes_without_a_trace(name):
    for delay_s in (0.4, 0.6, 0.8):
        with subprocess.Popen(
            [sys.executable, "-c", UP, name], start_new_session=True, stderr=subprocess.DEVNULL
        ) as up:
            with contextlib.suppress(subprocess.TimeoutExpired):
                up.wait(delay_s)
            os.killpg(up.pid, signal.SIGKILL)
    sandbox = Sandbox(name)
    sandbox.up(nodes=1, bmc=False, network="vxlan")
    state = sandbox.status()
    assert (state.router, state.nodes[0].link, state.nodes[0].cut) == ("works", "up", ())
    wait_until("FRR is up", lambda: sandbox.host("hv1").services()["frr"].ready, deadline_s=20)
    assert len(processes("bird", f"/{name}/")) == 1
    sandbox.cut_link("hv1", only=[links.UPSTREAM])
    assert sandbox.status().nodes[0].cut == ("upstream",)
    assert not pings(sandbox.host("hv1"), INTERNET)
    sandbox.heal_link("hv1")
    wait_until("the router is there again", lambda: pings(sandbox.host("hv1"), INTERNET6), deadline_s=10)
    sandbox.down()
    assert leftovers(name) == []
