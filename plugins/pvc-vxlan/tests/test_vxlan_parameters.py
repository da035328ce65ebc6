"""Parameters of managed networks and of the NICs in them."""

import uuid

import pytest

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.network import NetworkSpec
from pvc_core.model.vm import Nic
from pvc_vxlan.parameters import network_of, validate_network, validate_nic

WHOLE = {
    "vni": 1001,
    "ipv4": "10.101.0.0/24",
    "gateway4": "10.101.0.254",
    "ipv6": "fd00:101::/64",
    "dhcp4": ["10.101.0.100-10.101.0.199"],
    "dhcp6": ["fd00:101::100-fd00:101::1ff"],
    "domain": "net1.example.org",
    "dns_servers": ["9.9.9.9", "2620:fe::fe"],
    "ntp_servers": ["192.0.2.1"],
    "boot_file": "pxelinux.0",
    "boot_server": "192.0.2.2",
    "transfer_peers": ["192.0.2.53"],
    "masquerade": True,
    "reservations": [{"mac": "52:54:00:00:00:01", "address": "10.101.0.5", "address6": "fd00:101::5", "name": "web"}],
    "rules": [{"id": "ssh", "direction": "in", "protocol": "tcp", "ports": ["22"]}],
}


def spec(mtu=None, **parameters):
    return NetworkSpec(id=str(uuid.uuid4()), name="net1", driver="vxlan", mtu=mtu, parameters=parameters)


def test_all_parameters_together_are_right():
    network = network_of(spec(**WHOLE))
    validate_network(spec(**WHOLE), [])
    assert str(network.interface4) == "10.101.0.254/24"
    assert str(network.interface6) == "fd00:101::1/64"


def test_vni_alone_is_a_network_without_gateway():
    validate_network(spec(vni=1), [])
    network = network_of(spec(vni=1))
    assert (network.has_gateway, network.interface4, network.interface6) == (False, None, None)


def test_list_of_one_may_be_a_word():
    assert network_of(spec(**WHOLE | {"dns_servers": "9.9.9.9"})).dns_servers == ("9.9.9.9",)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "vni"),
        ({"vni": 0}, "vni: Expected `int` >= 1"),
        ({"vni": 1 << 24}, "vni: Expected `int` <= 16777215"),
        ({"vni": "x"}, "vni: Expected `int`"),
        ({"vni": 1, "masqerade": True}, "no parameter 'masqerade'; did you mean 'masquerade'?"),
        ({"vni": 1, "ipv4": "10.0.0.1/24"}, "ipv4: '10.0.0.1/24' is not a prefix"),
        ({"vni": 1, "ipv4": "fd00::/64"}, "ipv4: 'fd00::/64' is not a prefix"),
        ({"vni": 1, "ipv6": "10.0.0.0/24"}, "ipv6: '10.0.0.0/24' is not a prefix"),
        ({"vni": 1, "ipv4": "10.0.0.0/30"}, "has no room"),
        ({"vni": 1, "ipv4": "224.0.0.0/24"}, "not for hosts"),
        ({"vni": 1, "ipv4": "127.0.0.0/24"}, "not for hosts"),
        ({"vni": 1, "ipv6": "fe80::/64"}, "not for hosts"),
        ({"vni": 1, "gateway4": "10.0.0.1"}, "no prefix ipv4"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "gateway4": "10.0.1.1"}, "gateway4: 10.0.1.1 is not in 10.0.0.0/24"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "gateway4": "10.0.0.255"}, "first or last"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "gateway4": "10.0.0.0"}, "first or last"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "ipv6": "fd00::/64", "gateway4": "fd00::1"}, "gateway4: fd00::1 is of IPv6"),
        ({"vni": 1, "dhcp4": ["10.0.0.5-10.0.0.9"]}, "no gateway for IPv4"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "dhcp4": ["10.0.0.5"]}, "not a range first-last"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "dhcp4": ["10.0.0.9-10.0.0.5"]}, "end is before its beginning"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "dhcp4": ["10.0.0.5-10.0.1.9"]}, "10.0.1.9 is not in 10.0.0.0/24"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "dhcp4": ["10.0.0.1-10.0.0.9"]}, "gateway's address 10.0.0.1"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "dhcp4": ["10.0.0.5-10.0.0.255"]}, "first or last"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "dhcp4": ["10.0.0.5-10.0.0.9", "10.0.0.9-10.0.0.12"]}, "overlaps"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "gateway": False, "dhcp4": ["10.0.0.5-10.0.0.9"]}, "no gateway for IPv4"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "domain": "No_Domain"}, "domain: 'No_Domain'"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "dns_servers": ["dns.example"]}, "dns_servers: 'dns.example'"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "boot_server": "192.0.2.1"}, "without boot_file"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "boot_file": "a b"}, "boot_file"),
        ({"vni": 1, "transfer_peers": ["192.0.2.1"]}, "no name server"),
        ({"vni": 1, "ipv6": "fd00::/64", "masquerade": True}, "no gateway for IPv4"),
        ({"vni": 1, "rules": [{"id": "a", "direction": "in"}]}, "does not have"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "rules": [{"id": "a", "direction": "up"}]}, "rules[0].direction"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "rules": [{"id": "a", "direction": "in", "port": "1"}]}, "rules[0]"),
        ({"vni": 1, "ipv4": "10.0.0.0/24", "lease_s": 10}, "lease_s"),
    ],
)  # fmt: skip
def test_wrong_parameter_is_named_with_what_is_wrong(parameters, told):
    with pytest.raises(InvalidRequest) as refused:
        validate_network(spec(**parameters), [])
    assert told in str(refused.value)
    assert str(refused.value).startswith("network net1: ")


@pytest.mark.parametrize(
    ("reservation", "told"),
    [
        ({"mac": "52:54:00:00:00:0g", "address": "10.0.0.5"}, "not the MAC address"),
        ({"mac": "01:54:00:00:00:01", "address": "10.0.0.5"}, "not the MAC address"),
        ({"mac": "52:54:00:00:00:01", "address": "10.0.1.5"}, "10.0.1.5 is not in 10.0.0.0/24"),
        ({"mac": "52:54:00:00:00:01", "address": "10.0.0.1"}, "is the gateway's"),
        ({"mac": "52:54:00:00:00:01", "address6": "fd00::5"}, "has no prefix"),
        ({"mac": "52:54:00:00:00:01", "address": "10.0.0.5", "name": "a.b"}, "not a host name"),
        ({"mac": "52:54:00:00:00:01"}, "neither address nor name"),
        ({"mac": "52:54:00:00:00:02", "address": "10.0.0.9"}, "address 10.0.0.9 is there twice"),
    ],
)
def test_wrong_reservation_is_refused(reservation, told):
    first = {"mac": "52:54:00:00:00:09", "address": "10.0.0.9"}
    with pytest.raises(InvalidRequest, match=told):
        validate_network(spec(vni=1, ipv4="10.0.0.0/24", reservations=[first, reservation]), [])


@pytest.mark.parametrize(("mtu", "ipv6", "right"), [(576, "", True), (575, "", False), (1279, "fd00::/64", False), (1280, "fd00::/64", True), (65485, "", True), (65486, "", False)])  # fmt: skip
def test_mtu_suits_the_families(mtu, ipv6, right):
    wanted = spec(mtu, vni=1, ipv6=ipv6)
    if right:
        validate_network(wanted, [])
    else:
        with pytest.raises(InvalidRequest, match="MTU"):
            validate_network(wanted, [])


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"vni": 1001}, "VNI 1001 is network net2's"),
        ({"vni": 2, "ipv4": "10.101.0.128/25"}, "10.101.0.0/24 overlaps 10.101.0.128/25 of network net2"),
        ({"vni": 2, "ipv6": "fd00::/16"}, "overlaps fd00::/16 of network net2"),
        ({"vni": 2, "domain": "net1.example.org"}, "domain: net1.example.org is network net2's"),
    ],
)
def test_what_another_network_has_is_refused(other, told):
    there = NetworkSpec(id="o", name="net2", driver="vxlan", parameters=other)
    with pytest.raises(InvalidRequest) as refused:
        validate_network(spec(**WHOLE), [there])
    assert told in str(refused.value)


def test_networks_without_gateways_may_have_the_same_prefix():
    other = NetworkSpec(
        id="o", name="net2", driver="vxlan", parameters={"vni": 2, "ipv4": "10.0.0.0/24", "gateway": False}
    )
    validate_network(spec(vni=1, ipv4="10.0.0.0/24"), [other])


def test_network_that_cannot_be_read_keeps_no_other_from_being_made():
    validate_network(spec(vni=1), [NetworkSpec(id="o", name="net2", driver="vxlan", parameters={"old": True})])


def test_nic_with_an_address_of_the_network_is_right():
    validate_nic(spec(**WHOLE), nic("10.101.0.7", "fd00:101::7"))


def nic(*addresses, mac="52:54:00:00:00:02", **parameters):
    return Nic(network="net1", mac=mac, addresses=addresses, parameters=parameters)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (nic("10.101.1.7"), "10.101.1.7 is not in 10.101.0.0/24"),
        (nic("10.101.0.254"), "is the gateway's"),
        (nic("10.101.0.255"), "first or last"),
        (nic("10.101.0.5"), "10.101.0.5 is reserved for 52:54:00:00:00:01"),
        (nic("10.101.0.7", "10.101.0.8"), "one address of IPv4"),
        (nic("x"), "not an IP address"),
        (nic(spoof_check="maybe"), "spoof_check is true or false"),
        (nic(speed="1"), "no NIC parameter 'speed'"),
    ],
)
def test_wrong_nic_is_refused(wrong, told):
    with pytest.raises(InvalidRequest) as refused:
        validate_nic(spec(**WHOLE), wrong)
    assert told in str(refused.value)


def test_reserved_address_is_the_nics_own():
    validate_nic(spec(**WHOLE), nic("10.101.0.5", mac="52:54:00:00:00:01"))
