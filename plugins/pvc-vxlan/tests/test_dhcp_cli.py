"""``pvc network dhcp``: what it changes and prints, on a cluster whose nodes answer from a table."""

import subprocess
import sys

import pytest

from pvc_core.client.local import Client
from pvc_core.model.errors import Conflict, Unavailable
from pvc_vxlan.cli.dhcp import LeaseRow, rows_of
from pvc_vxlan.network import Reservation

A, B, C = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:0c"
LEASES = "vxlan.leases"


class Dhcp:
    def __init__(self, cluster):
        self.cluster = cluster
        cluster.answers = {LEASES: []}

    def __call__(self, *words):
        return self.cluster(*words)

    def reservations(self):
        return self.cluster.network()["parameters"].get("reservations")


@pytest.fixture
def pvc(monkeypatch, cli_support):
    return Dhcp(cli_support.Cluster(monkeypatch, "dhcp", ipv4="10.1.0.0/24", ipv6="fd00:1::/64"))


def test_a_reservation_is_added_and_replaced(pvc):
    ran = pvc("add", "lan", "52-54-00-00-00-0A", "fd00:1:0::5", "10.1.0.5", "--name", "web")
    assert ran.status == 0, ran.err
    assert ran.out == f"{A} gets fd00:1:0::5, 10.1.0.5, the name web in network lan\n"
    assert pvc.reservations() == [{"mac": A, "address": "10.1.0.5", "address6": "fd00:1::5", "name": "web"}]
    ran = pvc("add", "lan", A, "10.1.0.6")
    assert ran.status == 1
    assert "--replace" in ran.err
    assert pvc("add", "lan", A, "10.1.0.6", "--replace").status == 0
    assert pvc("add", "lan", B, "--name", "db").status == 0
    assert pvc.reservations() == [{"mac": A, "address": "10.1.0.6"}, {"mac": B, "name": "db"}]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((A,), "nothing to reserve"),
        ((A, "10.1.0.x"), "is no IP address"),
        ((A, "10.1.0.5", "10.1.0.6"), "a reservation has one IPv4 address, not 10.1.0.5 and 10.1.0.6"),
    ],
)
def test_what_cannot_be_reserved_is_refused(pvc, words, said):
    ran = pvc("add", "lan", *words)
    assert ran.status == 2
    assert said in ran.err
    assert pvc.reservations() is None


def test_reservations_are_removed_by_any_of_their_words(pvc):
    for words in ((A, "10.1.0.5"), (B, "fd00:1::6"), (C, "--name", "db")):
        pvc("add", "lan", *words)
    ran = pvc("remove", "lan", "10.1.0.5", "db")
    assert ran.out == f"reservations are removed from network lan: {A}, {C}\n"
    assert pvc.reservations() == [{"mac": B, "address6": "fd00:1::6"}]
    ran = pvc("remove", "lan", B, A)
    assert ran.status == 1
    assert f"network lan has no reservation {A}; it has: {B}" in ran.err
    assert pvc("remove", "lan", B.upper()).status == 0
    assert pvc.reservations() is None


def test_a_change_meanwhile_is_kept(pvc):
    pvc.cluster.before_modify = [lambda modify: modify(parameters={"reservations": [{"mac": B, "name": "db"}]})]
    assert pvc("add", "lan", A, "10.1.0.5").status == 0
    assert [one["mac"] for one in pvc.reservations()] == [B, A]


def test_endless_changes_by_others_are_told(pvc, monkeypatch):
    def call(client, operation, /, original=Client.call, **words):
        if operation == "network.modify":
            raise Conflict("it was changed meanwhile")
        return original(client, operation, **words)

    monkeypatch.setattr(Client, "call", call)
    ran = pvc("add", "lan", A, "10.1.0.5")
    assert (ran.status, "changed meanwhile" in ran.err) == (1, True)


def test_leases_and_reservations_are_listed_together(pvc):
    pvc("add", "lan", A, "10.1.0.5", "--name", "web")
    pvc.cluster.answers[LEASES] = [
        {"address": "10.1.0.5", "mac": A, "name": "web", "expires": 1800000000, "vm": "vm1", "client_id": "01"},
        {"address": "fd00:1::5", "mac": A, "name": "web", "expires": 1700000000, "vm": "vm1", "iaid": "1"},
        {"address": "10.1.0.99", "mac": B, "name": "laptop", "expires": 0},
    ]
    ran = pvc("list", "lan")
    assert pvc.cluster.asked == [(LEASES, "", {"network": pvc.cluster.id})]
    assert [line.split() for line in ran.out.splitlines()][-2:] == [
        [A, "10.1.0.5,fd00:1::5", "web", "vm1", "2023-11-14T22:13:20Z", "reservation+lease"],
        [B, "10.1.0.99", "laptop", "-", "never", "lease"],
    ]
    assert pvc("list", "lan", "-f", "json").json()[1]["addresses"] == ["10.1.0.99"]


def test_without_an_answer_the_reservations_are_listed(pvc):
    assert "has no leases and no reservations" in pvc("list", "lan").out + pvc("list", "lan").err
    pvc("add", "lan", A, "10.1.0.5")
    pvc.cluster.answers[LEASES] = Unavailable("no node answers")
    ran = pvc("list", "lan")
    assert ran.status == 0
    assert "leases are not known now: no node answers" in ran.err
    assert ran.out.splitlines()[-1].split() == [A, "10.1.0.5", "-", "-", "-", "reservation"]


def test_only_managed_networks_have_dhcp(pvc):
    ran = pvc("list", "wire")
    assert ran.status == 2
    assert "only networks of driver vxlan" in ran.err


def test_leases_without_a_mac_address_are_rows_of_their_own():
    leases = [LeaseRow(address="fd00:1::9", duid="00:01"), LeaseRow(address="fd00:1::8", duid="00:02", expires=5)]
    rows = rows_of(leases, (Reservation(mac=A, address="10.1.0.5"),))
    assert [(row.mac, row.addresses, row.kind, row.expires) for row in rows] == [
        (A, ("10.1.0.5",), "reservation", None),
        ("", ("fd00:1::8",), "lease", 5),
        ("", ("fd00:1::9",), "lease", 0),
    ]


def test_the_command_needs_nothing_of_a_node():
    text = "import sys, pvc_vxlan.cli.dhcp; print([m for m in ('pyroute2', 'pvc_netdev') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
