"""What of a gateway needs no kernel: hosts, dnsmasq's configuration, leases, files."""

from ipaddress import ip_interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.vm import Nic
from pvc_core.plugin import NetworkNic
from pvc_vxlan.gateway import dnsmasq, masquerade
from pvc_vxlan.gateway.directory import Directory, read, write
from pvc_vxlan.gateway.hosts import Host, dhcp_lines, hosts_of, label, name_lines
from pvc_vxlan.gateway.leases import Change, Lease, LeaseBook, as_rows, change_of, lease_file, server_duid
from pvc_vxlan.network import Reservation, VxlanNetwork

A, B, C = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:0c"


def network(*reservations: Reservation, **more) -> VxlanNetwork:
    values = {"ipv4": "10.1.0.0/24", "ipv6": "fd00:1::/64", **more}
    return VxlanNetwork(vni=1, reservations=reservations, **values)


def nic(mac: str, *addresses: str, vm: str = "vm1") -> NetworkNic:
    return NetworkNic(vm=vm, vm_name=vm, nic=Nic(network="n", mac=mac, addresses=addresses))


def zone(**more) -> dnsmasq.Zone:
    values = {"forwarders": (), "mtu": 1450, "static6": False, "user": "dnsmasq", "script": Path("/s"), **more}
    return dnsmasq.Zone(domain="lan.example", **values)


def rendered(wanted: VxlanNetwork, **more) -> list[str]:
    return dnsmasq.render(wanted, zone(**more), Directory(Path("/d"))).splitlines()


class TestHosts:
    def test_a_nic_has_its_own_addresses_and_its_vms_name(self):
        got = hosts_of(network(), [nic(A, "10.1.0.5", "fd00:1::5", vm="Web_1")])
        assert got.hosts == (Host(mac=A, addresses=("10.1.0.5", "fd00:1::5"), name="web-1"),)
        assert got.static6 and not got.problems

    def test_a_reservation_completes_what_the_nic_has(self):
        wanted = network(Reservation(mac=A, address="10.1.0.9", address6="fd00:1::9", name="www"))
        got = hosts_of(wanted, [nic(A, "10.1.0.5")])
        assert got.hosts == (Host(mac=A, addresses=("10.1.0.5", "fd00:1::9"), name="www"),)
        assert got.problems == (f"the reservation for {A} wants 10.1.0.9, but its NIC's own address is 10.1.0.5",)

    @pytest.mark.parametrize(
        ("address", "said"),
        [
            ("10.1.0.1", "the gateway has"),
            ("10.2.0.1", "is not in the network: it has 10.1.0.0/24 and fd00:1::/64"),
            ("10.1.0.5", "VM vm1 (NIC 52:54:00:00:00:0a) has"),
            ("x", "is no IP address"),
        ],
    )
    def test_an_address_that_cannot_be_is_told(self, address, said):
        got = hosts_of(network(Reservation(mac=B, address=address)), [nic(A, "10.1.0.5")])
        assert got.problems[0].endswith(said)
        assert [host.addresses for host in got.hosts] == [("10.1.0.5",), ()]

    def test_names_are_given_once(self):
        wanted = network(
            Reservation(mac=C, name="vm1"), Reservation(mac=B, name="ns"), Reservation(mac=C, name="other")
        )
        got = hosts_of(wanted, [nic(A)])
        assert [(host.mac, host.name) for host in got.hosts] == [(A, ""), (B, ""), (C, "vm1")]
        assert got.problems == (
            f"there are two reservations for {C}: the first holds",
            f"the reservation for {B} wants the name ns, which the gateway has",
            f"VM vm1 cannot have the name vm1, which the reservation for {C} has",
        )

    def test_two_nics_of_a_vm_are_no_conflict(self):
        got = hosts_of(network(), [nic(B), nic(A)])
        assert [(host.mac, host.name) for host in got.hosts] == [(A, "vm1"), (B, "")]
        assert not got.problems

    def test_one_mac_address_in_two_vms_is_told(self):
        got = hosts_of(network(), [nic(A, "10.1.0.6", vm="b"), nic(A, "10.1.0.5", vm="a")])
        assert got.hosts == (Host(mac=A, addresses=("10.1.0.5",), name="a"),)
        assert got.problems == (f"VM b (NIC {A}) has the MAC address of VM a: its addresses are not given",)

    @given(st.permutations([nic(A, "10.1.0.5", vm="a"), nic(B, "10.1.0.5", vm="b"), nic(C, "10.1.0.7", vm="A")]))
    def test_order_makes_no_difference(self, nics):
        assert hosts_of(network(), nics) == hosts_of(network(), sorted(nics, key=lambda nic: nic.nic.mac))

    @given(st.text(max_size=80))
    def test_a_label_is_one_or_nothing(self, text):
        made = label(text)
        assert len(made) <= 63 and not made.startswith("-") and not made.endswith("-")
        assert all(character in "abcdefghijklmnopqrstuvwxyz0123456789-" for character in made)

    def test_files(self):
        got = hosts_of(network(Reservation(mac=C)), [nic(A, "10.1.0.5", "fd00:1::5", vm="a"), nic(B, vm="b")])
        assert dhcp_lines(got) == f"{A},10.1.0.5,[fd00:1::5],a\n{B},b\n"
        assert name_lines(got, "lan.example") == "10.1.0.5 a.lan.example a\nfd00:1::5 a.lan.example a\n"


class TestConfiguration:
    @pytest.mark.parametrize(
        ("more", "static6", "ranges"),
        [
            ({}, False, ["fd00:1::,ra-stateless,ra-names,64,3600"]),
            ({}, True, ["fd00:1::,static,slaac,ra-names,64,3600"]),
            ({"slaac": False}, False, ["fd00:1::,static,64,3600"]),
            ({"dhcp6": ("fd00:1::10-fd00:1::1f",)}, False, ["fd00:1::10,fd00:1::1f,slaac,ra-names,64,3600"]),
            ({"dhcp6": ("fd00:1::10-fd00:1::1f",), "slaac": False}, False, ["fd00:1::10,fd00:1::1f,64,3600"]),
            ({"ipv6": "fd00:1::/80"}, False, ["fd00:1::,static,80,3600"]),
            ({"ipv6": "fd00:1::/48"}, False, []),
        ],
    )
    def test_ways_to_an_ipv6_address(self, more, static6, ranges):
        lines = rendered(network(**{"ipv4": "", **more}), static6=static6)
        assert [line.partition("=")[2] for line in lines if line.startswith("dhcp-range=")] == ranges
        assert ("enable-ra" in lines) is bool(ranges)

    def test_prefix_that_dnsmasq_cannot_serve_is_told(self):
        assert "shorter than /64" in dnsmasq.problems_of(network(ipv6="fd00:1::/48"))[0]
        assert dnsmasq.problems_of(network()) == ()

    def test_servers_of_a_family_that_the_gateway_lacks_are_not_asked(self):
        lines = rendered(network(ipv6=""), forwarders=("192.0.2.1", "2001:db8::1"))
        assert [line for line in lines if line.startswith("server=")] == ["server=192.0.2.1"]

    def test_transfers_only_to_peers(self):
        assert not [line for line in rendered(network()) if line.startswith(("auth-peer", "auth-sec-servers"))]
        assert "auth-peer=192.0.2.1,2001:db8::1" in rendered(network(transfer_peers=("192.0.2.1", "2001:db8::1")))

    def test_without_names_guests_are_told_whom_to_ask(self):
        lines = rendered(network(dns=False, dns_servers=("192.0.2.1", "2001:db8::1")))
        assert "port=0" in lines
        assert "dhcp-option=option:dns-server,192.0.2.1" in lines
        assert "dhcp-option=option6:dns-server,[2001:db8::1]" in lines
        assert not [line for line in lines if line.startswith(("auth-", "server="))]

    @pytest.mark.parametrize("value", ["a\ndhcp-script=/bin/false", "a b", 'a"', "a,b", "a#b"])
    def test_a_value_cannot_become_a_line(self, value):
        with pytest.raises(InvalidRequest):
            rendered(network(boot_file=value))

    @pytest.mark.parametrize("value", ["10.1.0.9\ndhcp-script=/x", "any"])
    def test_an_address_must_be_one(self, value):
        with pytest.raises(InvalidRequest, match="no IP address"):
            rendered(network(transfer_peers=(value,)))

    @pytest.mark.parametrize(
        ("prefix", "zones"),
        [
            ("10.1.2.1/24", ["2.1.10.in-addr.arpa"]),
            ("10.1.2.1/16", ["1.10.in-addr.arpa"]),
            ("10.1.2.1/23", ["2.1.10.in-addr.arpa", "3.1.10.in-addr.arpa"]),
            ("10.1.2.1/25", []),
            ("fd00:1::1/64", ["0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa"]),
        ],
    )
    def test_reverse_zones_hold_nobody_elses_addresses(self, prefix, zones):
        assert dnsmasq.reverse_zones(ip_interface(prefix)) == zones


FOUR = "add\n52:54:00:00:00:0a\n10.1.0.5\nlaptop\n1700000000\n01:52:54:00:00:00:0a\n\n\n"
SIX = "old\n00:03:00:01:52:54:00:00:00:0a\nfd00:1::5\n\n1700000000\n\n12345\n52:54:00:00:00:0a\n"


class TestLeases:
    def test_what_the_script_says(self):
        four = Lease(address="10.1.0.5", mac=A, name="laptop", expires=1700000000, client_id=f"01:{A}")
        six = Lease(address="fd00:1::5", mac=A, expires=1700000000, duid=f"00:03:00:01:{A}", iaid="12345")
        assert change_of(FOUR) == Change(address="10.1.0.5", lease=four)
        assert change_of(SIX) == Change(address="fd00:1::5", lease=six)
        assert change_of(FOUR.replace("add", "del")) == Change(address="10.1.0.5", lease=None)
        assert change_of("") is change_of(FOUR[:20]) is None
        assert lease_file([six, four], "00:04") == (
            f"1700000000 {A} 10.1.0.5 laptop 01:{A}\nduid 00:04\n1700000000 12345 fd00:1::5 * 00:03:00:01:{A}\n"
        )

    def test_the_gateways_duid_is_its_networks(self):
        assert (
            server_duid("00112233-4455-6677-8899-aabbccddeeff")
            == "00:04:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff"
        )

    def test_what_cannot_be_published_is_kept_until_something_newer_comes(self, tmp_path, gateway_support):
        records = gateway_support.FakeRecords()
        directory = Directory(tmp_path / "d")
        directory.make()
        book = LeaseBook(records)
        write(directory.spool / "10.1.0.5", FOUR)
        records.down = True
        for _ in range(2):
            with pytest.raises(Exception, match="does not answer"):
                book.publish("n", directory)
        write(directory.spool / "10.1.0.5", FOUR.replace("laptop", "desk"))
        records.down = False
        assert book.current("n", directory)["10.1.0.5"].name == "desk"
        assert book.publish("n", directory) == 1
        assert records.all["lease/n/10.1.0.5"]["name"] == "desk"
        assert book.publish("n", directory) == 0
        write(directory.spool / "10.1.0.5", FOUR.replace("add", "del"))
        assert book.publish("n", directory) == 1
        assert records.all == {}

    def test_rows_of_a_query_name_the_vm(self):
        leases = [Lease(address="10.1.0.5", mac=A, expires=7), Lease(address="10.1.0.6", mac=B)]
        assert as_rows(leases, [nic(A.upper(), vm="vm1")]) == [
            {"address": "10.1.0.5", "mac": A, "expires": 7, "vm": "vm1"},
            {"address": "10.1.0.6", "mac": B, "vm": ""},
        ]

    def test_a_record_that_is_none_of_ours_is_passed_over(self, tmp_path, gateway_support):
        records = gateway_support.FakeRecords()
        records.put("lease/n/10.1.0.5", {"address": "10.1.0.5"})
        records.put("lease/n/10.1.0.6", {"address": 6})
        assert list(LeaseBook(records).known("n")) == ["10.1.0.5"]

    def test_a_broken_file_stops_nothing(self, tmp_path, gateway_support):
        directory = Directory(tmp_path / "d")
        directory.make()
        write(directory.spool / "10.1.0.4", "nonsense")
        write(directory.spool / "10.1.0.5", FOUR)
        assert LeaseBook(gateway_support.FakeRecords()).publish("n", directory) == 1
        assert not list(directory.taken.iterdir())


def test_files_are_written_when_they_change(tmp_path):
    assert read(tmp_path / "a") == ""
    assert write(tmp_path / "a", "x") and not write(tmp_path / "a", "x") and write(tmp_path / "a", "y")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert Directory(tmp_path).config("x") != Directory(tmp_path).config("y")


def test_masquerade_of_nobody_is_no_table():
    assert "chain" not in masquerade.render([])
    assert "elements = { 10.1.0.0/24, 10.2.0.0/24 }" in masquerade.render(["10.2.0.0/24", "10.1.0.0/24"])
