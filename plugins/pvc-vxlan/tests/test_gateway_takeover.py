"""A gateway's leases and its dnsmasq survive: a move to another node, a daemon's end, their own end, the store's absence."""

import os
import signal
import time
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest

from pvc_core.model.errors import PvcError
from pvc_netdev import namespace
from pvc_vxlan import names
from pvc_vxlan.gateway import service
from pvc_vxlan.network import VxlanNetwork

pytestmark = pytest.mark.real

MAC = "52:54:00:00:00:01"


def both(**more) -> VxlanNetwork:
    return VxlanNetwork(
        vni=100, ipv4="10.101.0.0/24", dhcp4=("10.101.0.100-10.101.0.199",), ipv6="fd00:101::/64", domain="lan.example",
        dhcp6=("fd00:101::1000-fd00:101::1fff",), **more,
    )  # fmt: skip


def taken(guest) -> tuple[str, str]:
    four = guest.dhcp4(hostname="laptop")
    guest.pings("fd00:101::1")
    return four["ip"], guest.dhcp6()["new_ip6_address"]


def published(site, node, network, count):
    """Return the records once there are so many."""

    def all_there() -> bool:
        node.do("publish")
        return len(site.records.below(f"lease/{network}")) == count

    site.until(all_there, f"{count} records")
    return site.records.below(f"lease/{network}")


def test_leases_are_published_and_end(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, both())
    guest = gateway_site.guest(gateway_node, network)
    four, six = taken(guest)
    records = published(gateway_site, gateway_node, network, 2)
    assert records[four]["mac"] == MAC and records[four]["name"] == "laptop"
    assert abs(records[four]["expires"] - time.time() - 3600) < 30
    assert records[six]["mac"] == MAC and records[six]["duid"] == f"00:03:00:01:{MAC}" and records[six]["iaid"]
    assert [lease.address for lease in gateway_node.do("leases", network)] == [four, six]
    # What is known already is not written again.
    before = gateway_site.records.writes
    os.kill(gateway_node.dnsmasq(network), signal.SIGHUP)
    gateway_site.until(lambda: list(gateway_node.files(network).spool.iterdir()), "the script was called again")
    gateway_site.until(
        lambda: not gateway_node.do("publish") and not _spooled(gateway_node, network), "all is published"
    )
    assert gateway_site.records.writes == before
    end_dnsmasq(gateway_site, gateway_node, network)
    there = names.gateway_namespace(network)
    gateway_site.until(lambda: not gateway_node.run("ip", "netns", "pids", there), "the script's process has ended too")
    gateway_node.do("publish")
    expired = {**records[four], "expires": int(time.time()) - 10}
    gateway_site.records.put(f"lease/{network}/{four}", expired)
    gateway_node.daemon()
    gateway_node.ensure(network, both())
    left = published(gateway_site, gateway_node, network, 1)
    # dnsmasq does not know the MAC address of a lease that it began with.
    assert left == {six: records[six]}


def test_records_follow_what_guests_do(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, both(lease_s=120))
    guest = gateway_site.guest(gateway_node, network)
    four = guest.dhcp4()["ip"]
    first = published(gateway_site, gateway_node, network, 1)[four]["expires"]

    def renewed() -> bool:
        assert guest.dhcp4()["ip"] == four
        gateway_node.do("publish")
        return gateway_site.records.all[f"lease/{network}/{four}"]["expires"] > first

    gateway_site.until(renewed, "the renewal is published")
    guest.take_and_release4()
    published(gateway_site, gateway_node, network, 0)


def test_daemon_killed_while_it_changes_dnsmasq_is_made_up_for(
    gateway_site, gateway_node, gateway_support, monkeypatch
):
    network = gateway_site.network()
    gateway_node.ensure(network, both())
    guest = gateway_site.guest(gateway_node, network)
    guest.ip("addr", "add", "10.101.0.9/24", "dev", "eth0")
    calls = [(service.process, name) for name in ("start", "stop", "reload")] + [(service, "write")]

    class Killed(BaseException):
        pass

    died = 0
    for turn in range(20):
        name, address = f"vm{turn}", f"10.101.0.{20 + turn}"
        nics = [gateway_support.nic(network, MAC, address, vm=name)]
        # Each change needs another dnsmasq, and has another name.
        wanted = both(ntp_servers=(f"192.0.2.{1 + turn % 2}",))
        count = 0
        with monkeypatch.context() as patch:
            for owner, call in calls:
                original = getattr(owner, call)

                def step(*arguments, original=original, turn=turn, **more):
                    nonlocal count
                    result = original(*arguments, **more)
                    count += 1
                    if count > turn // 2:
                        raise Killed
                    return result

                patch.setattr(owner, call, step)
            try:
                gateway_node.ensure(network, wanted, nics)
            except Killed:
                died += 1
        gateway_node.daemon()
        gateway_node.ensure(network, wanted, nics)
        gateway_site.until(lambda name=name, address=address: _asked(guest, f"{name}.lan.example") == [address], name)
        assert guest.dhcp4()["ntpsrv"] == wanted.ntp_servers[0]
        assert len(gateway_node.files(network).configs()) == 1
    assert 8 < died < 20


def _asked(where, name: str) -> list[str]:
    with where.inside():
        try:
            answer = dns.query.udp(dns.message.make_query(name, "A"), "10.101.0.1", timeout=0.5)
        except (dns.exception.Timeout, OSError):
            return []
    return [str(item) for found in answer.answer for item in found]


def _spooled(node, network) -> list:
    return [*node.files(network).spool.iterdir(), *node.files(network).taken.iterdir()]


def end_dnsmasq(site, node, network) -> None:
    os.kill(node.dnsmasq(network), signal.SIGKILL)
    site.until(lambda: not node.do("alive", network), "it has ended")


def test_leases_move_with_the_gateway(gateway_site, gateway_node):
    network = gateway_site.network()
    other = gateway_site.node()
    gateway_site.join(gateway_node, other, network)
    gateway_node.ensure(network, both())
    guest = gateway_site.guest(gateway_node, network)
    four, six = taken(guest)
    # Not published by a call of its own: by the removal.
    gateway_node.do("remove", network)
    other.ensure(network, both())
    lines = other.files(network).leases.read_text()
    assert four in lines and six in lines and "duid 00:04:" in lines
    assert [lease.address for lease in other.do("leases", network)] == [four, six]
    assert guest.pings("10.101.0.1")
    # Another guest that asks first gets neither; the first one keeps its own.
    late = gateway_site.guest(other, network, "52:54:00:00:00:02")
    assert four not in taken(late) and six not in taken(late)
    assert taken(guest) == (four, six)
    # A node without the gateway knows them from the records.
    published(gateway_site, other, network, 4)
    assert len(gateway_node.do("leases", network)) == 4


def test_killed_node_loses_only_what_it_had_not_published(gateway_site, gateway_node):
    network = gateway_site.network()
    other = gateway_site.node()
    gateway_site.join(gateway_node, other, network)
    gateway_node.ensure(network, both())
    guest = gateway_site.guest(gateway_node, network)
    four, six = taken(guest)
    published(gateway_site, gateway_node, network, 2)
    os.kill(gateway_node.dnsmasq(network), signal.SIGKILL)
    for device in (names.gateway_port(network), names.gateway_uplink(network), "eth0"):
        gateway_node.ip("link", "del", device)
    namespace.remove(names.gateway_namespace(network))
    other.ensure(network, both())
    assert guest.pings("10.101.0.1")
    assert taken(guest) == (four, six)


def test_dead_dnsmasq_is_started_again_with_its_leases(gateway_site, gateway_node):
    network, other = gateway_site.network(), gateway_site.network()
    gateway_node.ensure(network, both())
    gateway_node.ensure(other, VxlanNetwork(vni=101, ipv4="10.102.0.0/24"))
    guest = gateway_site.guest(gateway_node, network)
    four, _ = taken(guest)
    assert gateway_node.do("mend") == []
    assert gateway_node.do("problems", network) == []
    gateway_site.records.down = True
    end_dnsmasq(gateway_site, gateway_node, network)
    assert gateway_node.do("mend") == [network]
    assert "dnsmasq died" in gateway_node.do("problems", network)[0]
    assert gateway_node.do("alive", network) and gateway_node.do("alive", other)
    assert taken(guest)[0] == four


def test_dnsmasq_that_ends_at_once_is_told_and_not_started_all_the_time(gateway_site, gateway_node, monkeypatch):
    network = gateway_site.network()
    gateway_node.ensure(network, both())
    end_dnsmasq(gateway_site, gateway_node, network)
    starts = []

    def start(*arguments):
        starts.append(arguments)
        raise PvcError("no room on the device")

    with monkeypatch.context() as patch:
        patch.setattr(service.process, "start", start)
        for _ in range(5):
            assert gateway_node.do("mend") == []
    assert len(starts) in (1, 2)
    assert gateway_node.do("problems", network) == ["dnsmasq has died and cannot be started: no room on the device"]
    gateway_node.ensure(network, both())
    assert gateway_node.do("alive", network)
    assert "was started again" in gateway_node.do("problems", network)[0]


def test_new_daemon_adopts_the_dnsmasq_of_the_one_before(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, both())
    running = gateway_node.dnsmasq(network)
    gateway_node.daemon()
    gateway_node.ensure(network, both())
    assert gateway_node.dnsmasq(network) == running
    gateway_node.ensure(network, both(ntp_servers=("192.0.2.1",)))
    assert gateway_node.dnsmasq(network) not in (0, running)


def test_lost_pid_file_is_made_up_for(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, both())
    running = gateway_node.dnsmasq(network)
    gateway_node.files(network).pid.unlink()
    gateway_node.ensure(network, both())
    assert gateway_node.dnsmasq(network) not in (0, running)
    gateway_node.files(network).pid.unlink()
    gateway_node.do("remove", network)
    assert gateway_node.do("present") == []
    gateway_site.until(lambda: _gone(running), "it has ended")


def test_process_that_got_the_number_of_a_dead_dnsmasq_is_left_alone(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, both())
    end_dnsmasq(gateway_site, gateway_node, network)
    stranger = gateway_site.start(gateway_node, "sleep", "60")
    gateway_node.files(network).pid.write_text(f"{stranger.pid}\n")
    assert not gateway_node.do("alive", network)
    gateway_node.do("remove", network)
    assert stranger.poll() is None


def test_without_the_store_nothing_is_lost(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, both())
    gateway_site.records.down = True
    four, six = taken(gateway_site.guest(gateway_node, network))
    gateway_site.until(lambda: len(_spooled(gateway_node, network)) == 2, "the script was called")
    with pytest.raises(PvcError):
        gateway_node.do("publish")
    # Meanwhile the daemon is restarted, and so is dnsmasq.
    gateway_site.records.down = False
    gateway_node.daemon()
    end_dnsmasq(gateway_site, gateway_node, network)
    gateway_node.ensure(network, both())
    assert set(published(gateway_site, gateway_node, network, 2)) == {four, six}


def test_leases_of_a_prefix_that_the_network_had_are_forgotten(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, both())
    four, six = taken(gateway_site.guest(gateway_node, network))
    published(gateway_site, gateway_node, network, 2)
    gateway_node.ensure(network, VxlanNetwork(vni=100, ipv4="10.109.0.0/24", ipv6="fd00:101::/64"))
    assert list(published(gateway_site, gateway_node, network, 1)) == [six]
    assert four not in gateway_node.files(network).leases.read_text()


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
