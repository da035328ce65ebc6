"""What guests get from a network's gateway: addresses and options, by real clients from a real dnsmasq."""

import pytest

from pvc_vxlan.network import Reservation, VxlanNetwork

pytestmark = pytest.mark.real

MAC = "52:54:00:00:00:01"
OTHER_MAC = "52:54:00:00:00:02"


def both(**more) -> VxlanNetwork:
    return VxlanNetwork(
        vni=100, ipv4="10.101.0.0/24", dhcp4=("10.101.0.100-10.101.0.199",), ipv6="fd00:101::/64", domain="lan.example",
        **more,
    )  # fmt: skip


def test_guest_gets_an_address_of_the_range_and_reaches_its_gateway(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, both())
    guest = gateway_site.guest(gateway_node, network)
    got = guest.dhcp4()
    assert 100 <= int(got["ip"].rpartition(".")[2]) <= 199
    assert (got["router"], got["dns"], got["mtu"], got["domain"]) == ("10.101.0.1", "10.101.0.1", "1450", "lan.example")
    assert guest.pings("10.101.0.1")


def test_reservations_and_nics_have_their_own_addresses(gateway_site, gateway_node, gateway_support):
    network = gateway_site.network()
    wanted = both(reservations=(Reservation(mac=MAC, address="10.101.0.50", address6="fd00:101::50", name="web1"),))
    own = gateway_support.nic(network, OTHER_MAC, "10.101.0.60", "fd00:101::60", vm="Data_Base")
    gateway_node.ensure(network, wanted, [own])
    reserved = gateway_site.guest(gateway_node, network, MAC)
    vm = gateway_site.guest(gateway_node, network, OTHER_MAC)
    got = reserved.dhcp4(hostname="something-else")
    assert (got["ip"], got["hostname"]) == ("10.101.0.50", "web1")
    got = vm.dhcp4()
    assert (got["ip"], got["hostname"]) == ("10.101.0.60", "data-base")
    reserved.slaac("fd00:101::")  # its link-local address is there by now
    assert reserved.dhcp6()["new_ip6_address"] == "fd00:101::50"
    assert vm.dhcp6()["new_ip6_address"] == "fd00:101::60"


def test_range_of_ipv6_and_its_options(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, both(slaac=False, dhcp6=("fd00:101::1000-fd00:101::1fff",)))
    guest = gateway_site.guest(gateway_node, network)
    guest.pings("fd00:101::1")
    got = guest.dhcp6()
    assert got["new_ip6_address"].startswith("fd00:101::1")
    assert got["new_dhcp6_name_servers"] == "fd00:101::1"
    assert got["new_dhcp6_domain_search"].rstrip(".") == "lan.example"


def test_guest_makes_an_address_for_itself_with_slaac_only(gateway_site, gateway_node):
    network, other = gateway_site.network(), gateway_site.network()
    gateway_node.ensure(network, both())
    gateway_node.ensure(other, VxlanNetwork(vni=101, ipv6="fd00:102::/64", slaac=False))
    guest = gateway_site.guest(gateway_node, network)
    assert guest.slaac("fd00:101::").endswith(":5054:ff:fe00:1")
    routes = guest.ip("-6", "route", "show", "default")
    assert "proto ra" in routes and " dev eth0" in routes
    assert "1450" in guest.run("cat", "/proc/sys/net/ipv6/conf/eth0/mtu")
    assert guest.pings("fd00:101::1")
    without = gateway_site.guest(gateway_node, other, OTHER_MAC)
    gateway_site.until(lambda: "proto ra" in without.ip("-6", "route", "show", "default"), "an advertisement")
    assert "fd00:102::" not in without.ip("-6", "addr", "show", "dev", "eth0")


def test_options_of_the_network_reach_guests(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(
        network,
        both(
            gateway4="10.101.0.254", dns=False, dns_servers=("192.0.2.53", "2001:db8::53"), ntp_servers=("192.0.2.123",),
            boot_file="ipxe.efi", boot_server="192.0.2.69", lease_s=600,
        ),
        mtu=1400,
    )  # fmt: skip
    guest = gateway_site.guest(gateway_node, network)
    got = guest.dhcp4()
    assert (got["router"], got["dns"], got["ntpsrv"]) == ("10.101.0.254", "192.0.2.53", "192.0.2.123")
    assert (got["bootfile"], got["siaddr"], got["lease"], got["mtu"]) == ("ipxe.efi", "192.0.2.69", "600", "1400")


def test_without_ranges_only_those_with_an_address_get_one(gateway_site, gateway_node):
    network = gateway_site.network()
    wanted = VxlanNetwork(
        vni=100, ipv4="10.101.0.0/24", reservations=(Reservation(mac=MAC, address="10.101.0.50"),), domain="lan.example"
    )
    gateway_node.ensure(network, wanted)
    assert gateway_site.guest(gateway_node, network, MAC).dhcp4()["ip"] == "10.101.0.50"
    assert gateway_site.guest(gateway_node, network, OTHER_MAC).dhcp4() == {}


def test_changed_hosts_hold_without_a_restart(gateway_site, gateway_node, gateway_support):
    network = gateway_site.network()
    gateway_node.ensure(network, both(), [gateway_support.nic(network, MAC, "10.101.0.50")])
    guest = gateway_site.guest(gateway_node, network, MAC)
    assert guest.dhcp4()["ip"] == "10.101.0.50"
    before = gateway_node.dnsmasq(network)
    gateway_node.ensure(network, both(), [gateway_support.nic(network, MAC, "10.101.0.51")])
    gateway_support.until(lambda: guest.dhcp4().get("ip") == "10.101.0.51", "the new address")
    gateway_node.ensure(network, both(), [])
    gateway_support.until(lambda: guest.dhcp4().get("ip", "").startswith("10.101.0.1"), "an address of the range")
    assert gateway_node.dnsmasq(network) == before != 0


def test_address_that_another_guest_has_leased_is_given_to_whom_it_is_reserved_for(gateway_site, gateway_node):
    network = gateway_site.network()
    gateway_node.ensure(network, both())
    first = gateway_site.guest(gateway_node, network, MAC)
    leased = first.dhcp4()["ip"]
    gateway_node.ensure(network, both(reservations=(Reservation(mac=OTHER_MAC, address=leased),)))
    # The first one's renewal is refused from now on, so it takes another.
    assert first.dhcp4()["ip"] != leased
    assert gateway_site.guest(gateway_node, network, OTHER_MAC).dhcp4()["ip"] == leased
