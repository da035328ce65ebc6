"""Managed networks and the world outside: routes, the firewall between them, transfers of zones."""

import socket

import pytest

pytestmark = [pytest.mark.real, pytest.mark.network, pytest.mark.timeout(240)]

PREFIXES = {"10.101.0.0/24", "10.102.0.0/24", "fd00:101::/64", "fd00:102::/64"}
PORT = 7000


@pytest.fixture
def echo(lab):
    """A server in guest ``ranged`` that says what it is told; gives its address."""
    pid = lab.ranged.run(f"nc -ll -p {PORT} -e cat & echo PID $!").text.rpartition("PID ")[2]
    yield lab.ranged.address
    lab.ranged.run(f"kill {pid}")


def connect(lab, address):
    """Return a connection from outside."""
    from pvc_core.testkit.lan import entered

    with entered(lab.router.namespace):
        return socket.create_connection((address, PORT), timeout=10)


def answered(connection, word):
    """Whether the guest says a word again within some seconds."""
    connection.settimeout(3)
    connection.sendall(word)
    try:
        return word in connection.recv(100)
    except TimeoutError:
        return False


def test_router_outside_learns_exactly_the_client_networks(lab):
    lab.eventually("the router has them", lambda: lab.router.routes().keys() == PREFIXES)
    lab.learned_from(lab.primary(), *PREFIXES)


def test_router_outside_forgets_a_removed_network(lab):
    lab.pvc("network", "add", "green", "-d", "vxlan", "-p", "vni=1003", "-p", "ipv4=10.103.0.0/24",
            "-p", "ipv6=fd00:103::/64")  # fmt: skip
    new = {"10.103.0.0/24", "fd00:103::/64"}
    lab.eventually("the router has it", lambda: lab.router.routes().keys() == PREFIXES | new)
    lab.pvc("network", "remove", "green", "--yes")
    lab.eventually("the router forgot it", lambda: lab.router.routes().keys() == PREFIXES)


def test_guests_reach_the_internet(lab):
    from pvc_sandbox.router import INTERNET, INTERNET6

    for guest in (lab.ranged, lab.fixed, lab.bluish):
        guest.will_reach(INTERNET)
        guest.will_reach(INTERNET6)


def test_nobody_outside_reaches_a_guest_until_a_rule_says_so(lab):
    addresses = (lab.reserved.address, lab.reserved.address6)
    assert not any(lab.outside_reaches(address) for address in addresses)
    with lab.rule("red", "--in", "--protocol", "icmp") as four, lab.rule("red", "--in", "--protocol", "icmpv6") as six:
        for address, rule in zip(addresses, (four, six), strict=True):
            lab.eventually(f"{address} answers", lambda address=address: lab.outside_reaches(address))
            assert lab.rules("red")[rule]["packets"] > 0
        before = lab.rules("red")[four]["packets"]
        assert lab.outside_reaches(addresses[0])
        assert lab.rules("red")[four]["packets"] > before
    assert not any(lab.outside_reaches(address) for address in addresses)


def test_an_open_connection_is_cut_with_its_rule(lab, echo):
    tcp = ("--in", "--protocol", "tcp", "--port", str(PORT))
    with lab.rule("red", *tcp) as rule, connect(lab, echo) as connection:
        assert answered(connection, b"before")
        lab.pvc("network", "acl", "modify", "red", rule, "--comment", "still there")
        assert answered(connection, b"between")
        lab.pvc("network", "acl", "remove", "red", rule)
        assert not answered(connection, b"after")


def test_networks_are_isolated_until_a_rule_says_otherwise(lab):
    red, blue = lab.ranged, lab.bluish
    assert not red.reaches(blue.address)
    assert not blue.reaches(red.address)
    with lab.rule("blue", "--in", "--source", "10.101.0.0/24"):
        red.will_reach(blue.address)
        assert not blue.reaches(red.address)
    assert not red.reaches(blue.address)


def test_a_rule_that_nft_refuses_is_not_taken(lab):
    before = lab.rules("red")
    status, told = lab.cluster.refused("network", "acl", "add", "red", "--in", "--raw", "tcp dport nosuch accept")
    assert (status, "nosuch" in told) == (2, True)
    assert lab.rules("red") == before


def put_rules(lab, network, rules):
    """Write rules past all that looks at them before: as a version of nft that knew them would have left them."""
    from msgspec.structs import replace

    from pvc_core.store import keys
    from pvc_core.store.documents import read

    entry = read(lab.cluster.store, keys.network_spec(lab.id(network)))
    spec = entry.value
    parameters = {name: value for name, value in spec.parameters.items() if name != "rules"}
    if rules:
        parameters["rules"] = rules
    lab.cluster.store.commit(entry.put(replace(spec, generation=spec.generation + 1, parameters=parameters)))


def test_a_rule_that_nft_refuses_later_is_told_and_changes_nothing_else(lab):
    good = {"id": "good", "direction": "in", "protocol": "icmp"}
    bad = {"id": "bad", "direction": "in", "raw": "tcp dport nosuch accept"}
    try:
        put_rules(lab, "red", [good])
        lab.eventually("it answers", lambda: lab.outside_reaches(lab.fixed.address))
        put_rules(lab, "red", [good, bad])
        lab.eventually("the problem is told", lambda: "nosuch" in lab.problems("red"))
        assert lab.outside_reaches(lab.fixed.address)
        assert "nosuch" not in lab.problems("blue")
        with lab.rule("blue", "--in", "--protocol", "icmp"):
            lab.eventually("it answers too", lambda: lab.outside_reaches(lab.bluish.address))
        lab.pvc("network", "acl", "remove", "red", "bad")
        lab.eventually("the problem is over", lambda: "nosuch" not in lab.problems("red"))
        assert lab.outside_reaches(lab.fixed.address)
    finally:
        put_rules(lab, "red", [])
    assert not lab.outside_reaches(lab.fixed.address)


def transferred(lab, *, source):
    """Return the names of network red's zone as a transfer to an address outside gives them."""
    import dns.exception
    import dns.query
    import dns.zone

    from pvc_core.testkit.lan import entered

    with entered(lab.router.namespace):
        try:
            found = dns.zone.from_xfr(
                dns.query.xfr("10.101.0.1", "red.pvc.internal", source=source, lifetime=4), relativize=True
            )
        except (dns.exception.DNSException, OSError, EOFError):
            return set()
    return {name.to_text() for name in found.nodes}


def test_zones_are_transferred_to_configured_peers_and_nobody_else(lab):
    from pvc_sandbox.router import INTERNET

    peer = lab.router.address
    assert transferred(lab, source=peer) == set()
    lab.pvc("network", "modify", "red", "-p", f"transfer_peers={peer}")
    try:
        names = lab.eventually("a transfer", lambda: transferred(lab, source=peer))
        assert {"@", "fixed", "pearl", "ranged"} <= names
        assert transferred(lab, source=INTERNET) == set()
    finally:
        lab.pvc("network", "modify", "red", "-p", "transfer_peers=")
    assert transferred(lab, source=peer) == set()
