"""The gateway's place in the network and its way outside, in the real kernel."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pvc_core.plugin import DriverError, NotReady
from pvc_netdev import namespace
from pvc_netdev.links import Links
from pvc_vxlan import names
from pvc_vxlan.gateway import masquerade
from pvc_vxlan.gateway import namespace as gateway_namespace
from pvc_vxlan.network import VxlanNetwork
from pvc_vxlan.routes import METRIC, PROTOCOL

pytestmark = pytest.mark.real

MAC = "52:54:00:00:00:01"
BOTH = VxlanNetwork(vni=100, ipv4="10.101.0.0/24", ipv6="fd00:101::/64", domain="lan.example")


@pytest.fixture
def guest(gateway_site):
    def make(node, network, host=9, mac=MAC, prefix4="10.101.0", prefix6="fd00:101::"):
        made = gateway_site.guest(node, network, mac)
        made.ip("addr", "add", f"{prefix4}.{host}/24", "dev", "eth0")
        made.ip("addr", "add", f"{prefix6}{host}/64", "dev", "eth0", "nodad")
        made.ip("route", "add", "default", "via", f"{prefix4}.1")
        made.ip("route", "replace", "default", "via", f"{prefix6}1")
        return made

    return make


def routes(node) -> dict[str, str]:
    """Return the device of each route of ours on a node."""
    found = {}
    for version in ("-4", "-6"):
        for route in json.loads(node.ip("-j", version, "route", "show", "proto", str(PROTOCOL))):
            assert route["metric"] == METRIC
            found[route["dst"]] = route["dev"]
    return found


def inside(network_id, *words) -> str:
    argv = ("ip", "-n", names.gateway_namespace(network_id), *words)
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_guest_reaches_outside_and_is_reached(gateway_site, gateway_node, guest):
    network = gateway_site.network()
    gateway_node.ensure(network, BOTH)
    gateway_node.route_here("10.101.0.0/24")
    gateway_node.route_here("fd00:101::/64")
    made = guest(gateway_node, network)
    assert made.pings(gateway_node.outside4) and made.pings(gateway_node.outside6)
    assert gateway_site.outside.pings("10.101.0.9") and gateway_site.outside.pings("fd00:101::9")
    assert gateway_node.pings("10.101.0.9") and gateway_node.pings("fd00:101::9")
    uplink = names.gateway_uplink(network)
    assert routes(gateway_node) == {"10.101.0.0/24": uplink, "fd00:101::/64": uplink}


def test_networks_have_namespaces_of_their_own_and_reach_each_other(gateway_site, gateway_node, gateway_support, guest):
    one, two = gateway_site.network(), gateway_site.network()
    other = VxlanNetwork(vni=101, ipv4="10.102.0.0/24", ipv6="fd00:102::/64", masquerade=True)
    # As strict as an operator may be with addresses that come a wrong way.
    gateway_node.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.default.rp_filter=1")
    gateway_node.ensure(one, BOTH)
    gateway_node.ensure(two, other)
    first = guest(gateway_node, one)
    second = guest(gateway_node, two, 9, "52:54:00:00:00:02", "10.102.0", "fd00:102::")
    assert first.pings("10.102.0.9") and first.pings("fd00:102::9")
    # Not under the node's address: who is asked sees who asks.
    heard = gateway_support.Sniffer(first)
    assert second.pings("10.101.0.9")
    heard.until(lambda frame: frame[12:14] == b"\x08\x00" and frame[26:30] == bytes([10, 102, 0, 9]))
    assert sorted(gateway_node.do("present")) == sorted([one, two])
    gateway_node.do("remove", one)
    assert gateway_node.do("present") == [two]
    assert second.pings("10.102.0.1")


def test_masquerade_lets_guests_reach_who_does_not_know_the_network(gateway_site, gateway_node, guest):
    network, plain = gateway_site.network(), gateway_site.network()
    wanted = VxlanNetwork(vni=100, ipv4="10.101.0.0/24", ipv6="fd00:101::/64", masquerade=True)
    gateway_node.ensure(plain, VxlanNetwork(vni=101, ipv4="10.102.0.0/24"))
    gateway_node.ensure(network, wanted)
    made = guest(gateway_node, network)
    assert made.pings(gateway_node.outside4)
    assert gateway_node.run("nft", "list", "table", "ip", masquerade.TABLE).count("10.102.0.0") == 0
    # A daemon that has just begun, and a table that somebody removed.
    gateway_node.run("nft", "delete", "table", "ip", masquerade.TABLE)
    gateway_node.daemon()
    gateway_node.ensure(plain, VxlanNetwork(vni=101, ipv4="10.102.0.0/24"))
    assert made.pings(gateway_node.outside4)
    gateway_node.ensure(network, BOTH)
    assert made.misses(gateway_node.outside4)
    gateway_node.ensure(network, wanted)
    assert made.pings(gateway_node.outside4)
    gateway_node.do("remove", network)
    assert masquerade.TABLE not in gateway_node.run("nft", "list", "tables")


def test_addresses_and_mtu_change_in_place(gateway_site, gateway_node, guest):
    network = gateway_site.network()
    gateway_node.ensure(network, BOTH)
    made = guest(gateway_node, network)
    uplink = names.gateway_uplink(network)
    gateway_node.ensure(network, VxlanNetwork(vni=100, ipv4="10.101.0.0/24", gateway4="10.101.0.254"), mtu=1400)
    assert made.pings("10.101.0.254") and made.misses("10.101.0.1")
    assert routes(gateway_node) == {"10.101.0.0/24": uplink}
    assert "mtu 1400" in inside(network, "link", "show", "net0")
    gateway_node.ensure(network, VxlanNetwork(vni=100, ipv4="10.109.0.0/16", ipv6="fd00:109::/64"))
    assert routes(gateway_node) == {"10.109.0.0/16": uplink, "fd00:109::/64": uplink}
    assert "10.101" not in inside(network, "addr", "show", "net0")


def test_gateway_is_the_same_to_guests_on_any_node(gateway_site, gateway_node, gateway_support, guest):
    network = gateway_site.network()
    other = gateway_site.node()
    gateway_site.join(gateway_node, other, network)
    gateway_node.ensure(network, BOTH)
    made = guest(gateway_node, network)
    assert made.pings("10.101.0.1") and made.pings("fd00:101::1")
    neighbours = made.ip("neigh", "show")
    gateway_node.do("remove", network)
    heard = gateway_support.Sniffer(made)
    other.ensure(network, BOTH)
    assert made.pings("10.101.0.1") and made.pings("fd00:101::1")
    assert f"10.101.0.1 dev eth0 lladdr {names.gateway_mac(network)}" in neighbours
    assert f"10.101.0.1 dev eth0 lladdr {names.gateway_mac(network)}" in made.ip("neigh", "show")
    mac = bytes.fromhex(names.gateway_mac(network).replace(":", ""))
    for _ in range(3):
        heard.until(lambda frame: frame[:14] == b"\xff" * 6 + mac + b"\x08\x06" and frame[28:32] == frame[38:42])
        heard.until(
            lambda frame: (
                frame[6:14] == mac + b"\x86\xdd" and frame[54] == 136 and frame[38:54][:6] == b"\xff\x02\0\0\0\0"
            )
        )


def test_what_was_announced_is_not_announced_again(gateway_site, gateway_node, monkeypatch):
    network = gateway_site.network()
    announced = []
    monkeypatch.setattr(gateway_namespace, "announce", lambda *arguments, **_: announced.append(arguments[1]))
    gateway_node.ensure(network, BOTH)
    gateway_site.until(lambda: len(announced) == 2, "both turns")
    gateway_node.ensure(network, BOTH)
    gateway_node.daemon()
    gateway_node.ensure(network, BOTH)
    assert announced == [["10.101.0.1", "fd00:101::1"]] * 2


def test_firewall_is_there_before_guests_reach_the_gateway(gateway_site, gateway_node):
    network = gateway_site.network()
    seen = []

    def firewall(network_id, wanted):
        there = names.gateway_namespace(network_id)
        with Links() as host, Links(there) as links:
            net0 = links.get(names.GUEST_SIDE)
            seen.append((namespace.exists(there), net0.up, links.addresses(net0), host.routes(protocol=250), wanted))

    gateway_node.daemon(firewall)
    gateway_node.ensure(network, BOTH)
    assert seen == [(True, False, [], [], BOTH)]


def test_gateway_that_cannot_serve_routes_nevertheless(gateway_site, gateway_node, guest, monkeypatch):
    network = gateway_site.network()
    gateway_site.records.down = True
    with pytest.raises(Exception, match="store does not answer"):
        gateway_node.ensure(network, BOTH)
    guest(gateway_node, network)
    gateway_node.route_here("10.101.0.0/24")
    assert gateway_site.outside.pings("10.101.0.9")
    gateway_site.records.down = False
    gateway_node.ensure(network, BOTH)
    assert gateway_node.dnsmasq(network)


def test_bridge_must_be_there(gateway_site, gateway_node):
    network = gateway_site.network()
    with gateway_node.inside(), pytest.raises(NotReady, match="no bridge"):
        gateway_node.gateways.ensure(network, "lan", BOTH, [], 1450)
    assert gateway_node.do("present") == [network]
    gateway_node.do("remove", network)
    assert gateway_node.do("present") == []


def test_device_of_somebody_else_is_left_alone(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ip("link", "add", names.gateway_uplink(network), "type", "bridge")
    with pytest.raises(DriverError, match="is not this gateway's"):
        gateway_node.ensure(network, BOTH)
    gateway_node.do("remove", network)
    assert names.gateway_uplink(network) in gateway_node.ip("link", "show")


def test_whatever_is_taken_away_is_there_again(gateway_site, gateway_node, guest):
    network = gateway_site.network()
    gateway_node.route_here("10.101.0.0/24")
    gateway_node.route_here("fd00:101::/64")
    gateway_node.ensure(network, BOTH)
    made = guest(gateway_node, network)
    port, uplink, there = names.gateway_port(network), names.gateway_uplink(network), names.gateway_namespace(network)
    for damage in (
        ("ip", "link", "del", port),
        ("ip", "link", "del", uplink),
        ("ip", "link", "set", port, "nomaster"),
        ("ip", "link", "set", uplink, "down"),
        ("ip", "-n", there, "link", "set", "net0", "down"),
        ("ip", "-n", there, "link", "set", "net0", "address", "02:00:00:00:00:01"),
        ("ip", "-n", there, "route", "flush", "proto", "250"),
        ("ip", "addr", "flush", "dev", uplink),
        ("ip", "-n", there, "addr", "flush", "dev", "up0"),
        ("ip", "-n", there, "addr", "flush", "dev", "net0"),
        ("ip", "route", "del", "10.101.0.0/24"),
        ("sysctl", "-qw", "net.ipv4.ip_forward=0"),
        ("ip", "netns", "exec", there, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=0"),
        ("ip", "netns", "del", there),
    ):
        gateway_node.run(*damage)
        gateway_node.daemon()
        gateway_node.ensure(network, BOTH)
        assert made.pings(gateway_node.outside4), damage
        assert made.pings(gateway_node.outside6), damage


def test_daemon_killed_at_any_step_is_made_up_for(gateway_site, gateway_node, guest, monkeypatch):
    """Each call into the kernel, and each file, is once the last that a daemon did."""
    network = gateway_site.network()
    gateway_node.route_here("10.101.0.0/24")
    gateway_node.bridge(network)
    made = guest(gateway_node, network)
    steps = [(Links, name) for name in ("add_veth", "set", "add_address", "set_route")]
    steps += [(gateway_namespace.namespace, "create"), (gateway_namespace, "give_link_address")]

    class Killed(BaseException):
        pass

    died = 0
    for after in range(200):
        count = 0
        with monkeypatch.context() as patch:
            for owner, name in steps:
                original = getattr(owner, name)

                def step(*arguments, original=original, after=after, **more):
                    nonlocal count
                    result = original(*arguments, **more)
                    count += 1
                    if count > after:
                        raise Killed
                    return result

                patch.setattr(owner, name, step)
            try:
                gateway_node.ensure(network, BOTH)
                break
            except Killed:
                died += 1
        gateway_node.daemon()
        gateway_node.ensure(network, BOTH)
        assert made.pings("10.101.0.1") and made.pings(gateway_node.outside4), after
        gateway_node.daemon()
        gateway_node.do("remove", network)
        assert gateway_node.do("present") == []
        assert "pvcx" not in gateway_node.ip("-o", "link", "show").replace(names.bridge(network), "")
    assert died > 15


def test_gateway_is_found_without_its_files_and_another_nodes_is_not(gateway_site, gateway_node):
    network, elsewhere = gateway_site.network(), gateway_site.network()
    other = gateway_site.node()
    gateway_node.ensure(network, BOTH)
    other.ensure(elsewhere, BOTH)
    assert (gateway_node.do("present"), other.do("present")) == ([network], [elsewhere])
    running = gateway_node.dnsmasq(network)
    shutil.rmtree(gateway_node.directory / "run")
    gateway_node.daemon()
    assert (gateway_node.do("present"), other.do("present")) == ([network], [elsewhere])
    gateway_node.do("remove", elsewhere)
    gateway_node.do("remove", network)
    assert gateway_node.do("present") == []
    assert not namespace.exists(names.gateway_namespace(network))
    assert "net0" in inside(elsewhere, "link", "show")
    gateway_site.until(lambda: gone(running), "its dnsmasq has ended")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_removal_leaves_nothing(gateway_site, gateway_node):
    ids = [gateway_site.network() for _ in range(3)]
    for number, network in enumerate(ids):
        gateway_node.ensure(network, VxlanNetwork(vni=100 + number, ipv4=f"10.{number}.0.0/24", masquerade=True))
    running = [gateway_node.dnsmasq(network) for network in ids]
    assert all(running)
    gateway_node.do("remove_all")
    gateway_node.do("remove_all")
    assert not any(gateway_node.dnsmasq(network) for network in ids)
    assert not [name for network in ids for name in namespace.names(names.gateway_namespace(network))]
    assert routes(gateway_node) == {}
    links = gateway_node.ip("-o", "link", "show")
    assert "pvcxg" not in links and "pvcxu" not in links and links.count("pvcxb") == 3
    assert not list((gateway_node.directory / "run" / "vxlan" / "gateway").iterdir())
    assert masquerade.TABLE not in gateway_node.run("nft", "list", "tables")


def test_network_without_a_gateway_has_none(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, BOTH)
    gateway_node.ensure(network, VxlanNetwork(vni=100, ipv4="10.101.0.0/24", gateway=False))
    assert gateway_node.do("present") == []
    assert routes(gateway_node) == {}
