"""What moves with the primary role: gateways with their leases and names, and floating addresses; and what stays when the
daemon is started again.
"""

import signal
import socket
import threading

import pytest

pytestmark = [pytest.mark.real, pytest.mark.network, pytest.mark.timeout(300)]

SINK = 9000


@pytest.fixture
def home(lab):
    """Give the primary; it is the primary again in the end."""
    primary = lab.primary()
    lab.take_over(primary)
    yield primary
    lab.take_over(primary)


@pytest.fixture
def sink(lab):
    """A server on the Internet; gives what it was told in all, on connections that it counts."""
    from pvc_core.testkit.lan import entered
    from pvc_sandbox.router import INTERNET

    with entered(lab.router.namespace):
        server = socket.create_server((INTERNET, SINK))
    told, connections = bytearray(), []

    def listen():
        try:
            while True:
                connection, _ = server.accept()
                connections.append(connection)
                while data := connection.recv(1000):
                    told.extend(data)
        except OSError:
            return

    thread = threading.Thread(target=listen)
    thread.start()
    yield told, connections
    for each in (*connections, server):
        each.shutdown(socket.SHUT_RDWR)
        each.close()
    thread.join(10)


def where(lab, address):
    """Return the nodes that have an address."""
    return [node for node in lab.sandbox.nodes() if f" {address}/" in lab.node(node, "ip", "addr", "show")]


def test_gateways_move_with_leases_names_and_connections(lab, home, sink):
    from pvc_sandbox.router import INTERNET

    told, connections = sink
    guest, target = lab.ranged, lab.others(home)[0]
    address, before = guest.address, lab.dhcp("red")
    talking = guest.run(
        f"(while echo on; do sleep 0.2; done) | nc {INTERNET} {SINK} >/dev/null 2>&1 & echo PID $!"
    ).text.rpartition("PID ")[2]  # fmt: skip
    lab.eventually("the connection is used", lambda: told)
    with guest.pinging(INTERNET) as pings:
        lab.take_over(target)
        pings.go_on()
        sent = len(told)
        lab.eventually("the connection goes on", lambda: len(told) > sent)
    print(f"gateway moved from {home} to {target}: {pings.told}")
    assert pings.gap < 100
    assert len(connections) == 1
    guest.run(f"kill {talking}")
    assert lab.gateways(home) == set()
    after = lab.dhcp("red")
    assert {mac: row["addresses"] for mac, row in after.items()} == {m: row["addresses"] for m, row in before.items()}
    assert "10.101.0.33" in lab.fixed.resolve("pearl.red.pvc.internal", "a")
    lab.learned_from(target, "10.101.0.0/24", "fd00:101::/64")

    def renewed():
        guest.run("killall -USR1 udhcpc")
        return lab.dhcp("red")[guest.mac]["expires"] > before[guest.mac]["expires"]

    lab.eventually("the lease is renewed by the new gateway", renewed)
    assert guest.address == address
    lab.fixed.will_reach(address)


def test_floating_addresses_move_with_the_role(lab, home):
    target = lab.others(home)[-1]
    for address in lab.floating:
        lab.eventually(f"{address} answers", lambda address=address: lab.outside_reaches(address))
        assert where(lab, address) == [home]
    lab.take_over(target)
    for address in lab.floating:
        lab.eventually(f"{address} answers", lambda address=address: lab.outside_reaches(address))
        assert where(lab, address) == [target]


def test_gateways_go_on_while_the_daemon_of_the_primary_is_started_again(lab, home):
    from pvc_sandbox.router import INTERNET

    process, starts = lab.dnsmasq(home, "red"), lab.cluster.service(home).starts
    assert process
    with lab.reserved.pinging(INTERNET) as pings:
        lab.cluster.signal(home, signal.SIGKILL)
        lab.eventually("the daemon is back", lambda: (s := lab.cluster.service(home)).starts > starts and s.ready)
        # It has looked at the network: it knows of a change.
        lab.pvc("network", "modify", "red", "-p", "ntp_servers=192.0.2.9")
        lab.pvc("network", "modify", "red", "-p", "ntp_servers=")
        pings.go_on()
    print(f"daemon of {home} killed: {pings.told}")
    assert pings.asked - pings.answered <= 1
    assert lab.primary() == home


def test_dnsmasq_is_the_same_process_after_the_daemon_is_started_again(lab, home):
    process, starts = lab.dnsmasq(home, "red"), lab.cluster.service(home).starts
    assert process
    lab.cluster.signal(home, signal.SIGKILL)
    lab.eventually("the daemon is back", lambda: (s := lab.cluster.service(home)).starts > starts and s.ready)
    # Reservations are read again without a restart.
    lab.pvc("network", "dhcp", "add", "red", "52:54:00:99:99:99", "10.101.0.44", "--name", "absent")
    name = "absent.red.pvc.internal"
    lab.eventually("the new daemon serves", lambda: "10.101.0.44" in lab.fixed.resolve(name, "a"))
    lab.pvc("network", "dhcp", "remove", "red", "absent")
    lab.eventually("the name is gone", lambda: "10.101.0.44" not in lab.fixed.resolve(name, "a"))
    assert lab.dnsmasq(home, "red") == process
    assert lab.primary() == home


def test_gateways_move_when_the_primary_s_daemon_is_stopped(lab, home):
    from pvc_sandbox.router import INTERNET

    with lab.ranged.pinging(INTERNET) as pings:
        lab.sandbox.host(home).stop_service("pvcnoded")
        lab.eventually("another primary", lambda: lab.cluster.primary() not in (None, home))
        pings.go_on()
    print(f"daemon of {home} stopped in good order: {pings.told}")
    assert lab.gateways(home) == set()
    lab.sandbox.power_on(home)
    lab.cluster.bring_into_service(home)
