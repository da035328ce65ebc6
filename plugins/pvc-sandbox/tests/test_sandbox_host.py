"""One simulated host: real namespaces, real libvirtd."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pvc_sandbox import links
from pvc_sandbox.control import NoAnswer, Service
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.host import Host
from pvc_sandbox.waiting import wait_until

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("hosts")
    yield path
    layout = Host(path, 1).layout
    for number in (1, 2, 3):
        Host(layout, number).destroy()
    assert not links.switch_exists(layout)
    assert not layout.run.exists()
    assert list(path.iterdir()) == []


@pytest.fixture
def host(directory):
    made = Host(directory, 1)
    made.start()
    return made


@pytest.fixture
def other(directory):
    made = Host(directory, 2)
    made.start()
    return made


def shell(host, script):
    return host.exec(["sh", "-c", script]).check().stdout.strip()


def pings(source, target, address=None):
    return source.exec(["ping", "-c", "1", "-W", "1", address or target.address]).returncode == 0


def reaches_again(source, target, address=None):
    # The kernel takes up to a second to act on a carrier that comes back (its linkwatch), and a neighbour that was
    # just found to be gone has to be asked for anew.
    wait_until("an answer to a ping", lambda: pings(source, target, address), deadline_s=10)


def test_libvirt_answers_from_outside_and_knows_the_host(host, other):
    def ask(which, *words):
        done = subprocess.run(["virsh", "-q", "-c", which.uri, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert [ask(host, "hostname"), ask(other, "hostname")] == ["hv1", "hv2"]
    identities = {ask(which, "capabilities").split("<uuid>")[1].split("<")[0] for which in (host, other)}
    assert len(identities) == 2  # equal ones would be one host for libvirt, and nothing could migrate


def test_starting_a_host_that_is_on_changes_nothing(host):
    before = (host.pid, host.services())
    host.start()
    assert (host.pid, host.services()) == before


def test_hosts_see_each_other_and_only_their_own_processes_and_links(host, other):
    assert pings(host, other)
    assert "pvc_sandbox.node_init" in shell(host, "tr '\\0' ' ' </proc/1/cmdline")
    assert shell(host, "ls /sys/class/net") == "eth0\nguest0\nlo\nmgmt0\nup0"
    assert shell(host, "hostname") == "hv1"
    assert shell(host, "ls /run/netns 2>/dev/null || true") == ""


def test_equal_taps_on_two_hosts_are_two_devices(host, other):
    for each in (host, other):
        each.exec(["ip", "link", "add", "mt0", "index", "900", "link", "guest0", "type", "macvtap"]).check()
    try:
        for each in (host, other):
            wait_until("the tap's device", lambda each=each: "tap900" in shell(each, "ls /dev"), deadline_s=5)
            wanted = shell(each, "cat /sys/class/net/mt0/tap900/dev")
            assert shell(each, "printf '%d:%d' 0x$(stat -c %t /dev/tap900) 0x$(stat -c %T /dev/tap900)") == wanted
    finally:
        for each in (host, other):
            each.exec(["ip", "link", "delete", "mt0"]).check()
    wait_until("the device is gone", lambda: "tap900" not in shell(host, "ls /dev"), deadline_s=5)


def test_power_cut_ends_everything_in_no_time_and_spares_the_disk(host, other, tmp_path):
    shell(host, f"touch {host.state}/kept /run/lost")
    mark = f"7{os.getpid()}"
    host.start_service(Service(name="busy", argv=("sleep", mark), log=str(host.state / "log/busy.log")))
    assert mark in _words_of_all_processes()
    begun = time.monotonic()
    host.power_cut()
    assert time.monotonic() - begun < 2
    assert mark not in _words_of_all_processes()
    assert not host.running
    assert not pings(other, host)
    with pytest.raises(SandboxError, match="hv1 is off"):
        host.exec(["true"])
    host.power_cut()  # again: it is off already
    host.start()
    assert pings(other, host)
    assert (host.state / "kept").exists()
    assert shell(host, "ls /run/lost 2>/dev/null || echo gone") == "gone"


def _words_of_all_processes():
    words = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words += path.read_bytes().decode(errors="replace").split("\0")
    return words


def test_peers_of_a_host_without_power_hear_nothing(host, other):
    """A killed process alone would end its connections, and peers would know at once what takes them a time-out."""
    server = "import socket; s = socket.create_server(('', 7777)); c, _ = s.accept(); c.sendall(b'x'); c.recv(1)"
    host.start_service(Service(name="peer", argv=(sys.executable, "-c", server), log=str(host.state / "log/peer.log")))
    client = (
        "import socket, sys\n"
        f"c = socket.create_connection(('{host.address}', 7777))\n"
        "assert c.recv(1) == b'x'\n"
        "print('connected', flush=True)\n"
        "c.settimeout(1)\n"
        "sys.stdin.readline()\n"
        "try:\n    print('heard', c.recv(1))\nexcept TimeoutError:\n    print('silence')\n"
    )
    wait_until("the server listens", lambda: ":7777" in shell(host, "ss -ltn"), deadline_s=10)
    with subprocess.Popen(
        other.command([sys.executable, "-c", client]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "connected\n"
        host.power_cut()
        out, _ = process.communicate("\n", timeout=10)
    assert out == "silence\n"


def test_frozen_host_is_silent_and_goes_on(host):
    host.freeze()
    try:
        assert host.frozen
        with pytest.raises(NoAnswer, match="frozen"):
            host.services()
        done = subprocess.run(["timeout", "1", "virsh", "-c", host.uri, "hostname"], capture_output=True, check=False)
        assert done.returncode == 124
    finally:
        host.thaw()
    assert not host.frozen
    assert host.services()["libvirtd"].starts == 1


def test_frozen_host_goes_on_when_it_is_started(host):
    host.freeze()
    host.start()
    assert not host.frozen


def test_host_that_loses_power_while_it_hangs_is_whole_when_it_comes_back(host):
    host.freeze()
    host.power_cut()
    host.thaw()  # too late, and harmless
    assert not host.running
    host.boot()
    host.thaw()
    assert not host.frozen
    host.start()


def test_pulled_cables_and_back(host, other):
    host.cut_link()
    assert not pings(other, host)
    assert shell(host, "cat /sys/class/net/eth0/carrier") == "0"
    assert pulled(host) == ["hv1", "hv1-guest", "hv1-up"]
    assert pings(other, host, host.layout.management_address(1)), "the way to the BMCs is another one"
    host.cut_link(links.NETWORKS)
    assert pulled(host) == ["hv1", "hv1-guest", "hv1-mgmt", "hv1-up"]
    assert not pings(other, host, host.layout.management_address(1))
    host.heal_link()
    assert pulled(host) == []
    reaches_again(other, host)
    host.cut_link()
    host.start()
    reaches_again(other, host)


def test_cable_to_one_network_is_pulled_alone(host, other):
    host.cut_link([links.UPSTREAM])
    assert pulled(host) == ["hv1-up"]
    assert not pings(other, host, host.layout.upstream_address6(1))
    assert pings(other, host)
    host.heal_link()
    reaches_again(other, host, host.layout.upstream_address6(1))


def test_hosts_use_ipv6_at_once_and_have_no_way_outside_unless_there_is_a_router(host, other):
    host.power_cut()
    host.start()
    assert shell(host, "ip -6 -o address show tentative") == ""
    assert pings(other, host, host.layout.cluster_address6(1))
    assert pings(other, host, host.layout.upstream_address(1))
    assert shell(host, "ip route show default; ip -6 route show default") == ""


def test_pulled_cables_stay_pulled_when_the_button_is_pressed(host, other):
    host.cut_link()
    host.power_cut()
    host.boot()
    assert pulled(host) == ["hv1", "hv1-guest", "hv1-up"]
    assert not pings(other, host)
    host.start()
    reaches_again(other, host)


def pulled(host):
    return sorted(port for port, up in links.carriers(host.layout).items() if not up)


def test_libvirtd_that_dies_is_started_again(host):
    host.signal_service("libvirtd", signal.SIGKILL)
    wait_until("it runs again", lambda: host.services()["libvirtd"].starts > 1, deadline_s=10)
    host.start()  # returns when it answers


def test_launcher_killed_at_any_moment_is_no_obstacle(directory):
    """Its child is recorded or has ended: never a host that nobody knows of."""
    host = Host(directory, 3)
    program = f"from pathlib import Path; from pvc_sandbox.host import Host\nHost(Path({str(directory)!r}), 3).start()"
    for delay_s in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5):
        with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) as starter:
            with contextlib.suppress(subprocess.TimeoutExpired):
                starter.wait(delay_s)
            starter.kill()
        host.start()
        assert shell(host, "hostname") == "hv3"
        assert _words_of_all_processes().count(str(host.state / "init.json")) == 1
        host.power_cut()


@pytest.mark.parametrize("number", [0, 100, -1])
def test_host_numbers_have_bounds(directory, number):
    with pytest.raises(SandboxError, match="hosts 1 to 99"):
        Host(directory, number)
