"""Floating addresses on the real kernel: who has them, how they move, and what a neighbour notices."""

import contextlib
import re
import subprocess
import threading
import time
from itertools import pairwise

import pytest

from pvc_core.plugin import DriverError
from pvc_hostnet import truth, upkeep
from pvc_hostnet.steps import FLOATING as FLOATING_MARK
from pvc_netdev.announce import announce
from pvc_netdev.links import Links

pytestmark = pytest.mark.real

V4, V6 = "10.0.0.254", "fd00:1::fe"
SECTION = {
    "cluster": {
        "device": "eth0",
        "addresses": ["10.0.0.0/24", "fd00:1::/64"],
        "floating": [f"{V4}/24", f"{V6}/64"],
    }
}
OWN = {1: ["10.0.0.1/24", "fd00:1::1/64"], 2: ["10.0.0.2/24", "fd00:1::2/64"]}
FLOATING = [f"{V4}/32", f"{V6}/128"]


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(upkeep, "EVERY_S", 0.1)
    monkeypatch.setattr(upkeep, "_SOON_S", 0.05)


class Coordinator:
    """A host with a daemon that may be the primary."""

    def __init__(self, segment, number):
        self.host = segment.host(f"node{number}", "eth0")
        self.hooks = None
        self.restart()

    def restart(self, **section):
        """Begin a daemon; one that ran before is gone."""
        if self.hooks:
            self.end()
        self.hooks = self.host.start(**(section or SECTION))
        with self.host.inside():
            services = self.hooks.role_services()
        self.service = services[0] if services else None

    def end(self):
        """Let the daemon be gone."""
        self.hooks.node_stopping(self.host.name)

    def acquire(self, term=1):
        with self.host.inside():
            self.service.acquire(term)

    def relinquish(self):
        with self.host.inside():
            self.service.relinquish()

    def held(self):
        return [address for address in self.host.addresses() if address in FLOATING]


class Pings:
    """A neighbour that pings an address every 10 ms."""

    def __init__(self, host, address, count):
        argv = ["ping", "-n", "-D", "-i", "0.01", "-c", str(count), "-w", "15", address]
        with host.inside():
            self._child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

        self._said = []

    def answered(self, count):
        """Wait until so many requests were answered."""
        while len(self._numbers()) < count:
            line = self._child.stdout.readline()
            assert line, f"ping ended: {self._said}"
            self._said.append(line)

    def result(self):
        """Return the numbers of the requests that were answered, and how many were sent."""
        self._said.extend(self._child.stdout)
        return self._numbers(), int(re.search(r"(\d+) packets transmitted", "".join(self._said))[1])

    def _numbers(self):
        return sorted({int(number) for number in re.findall(r"icmp_seq=(\d+) .*time=", "".join(self._said))})

    def close(self):
        if self._child.poll() is None:
            self._child.kill()
        self._child.communicate()


@pytest.fixture
def one(segment):
    return Coordinator(segment, 1)


@pytest.fixture
def two(segment):
    return Coordinator(segment, 2)


@pytest.fixture
def neighbour(segment):
    made = segment.host("client9", "eth0")
    made.set("eth0", state="up")
    made.give("10.0.0.99/24")
    made.give("fd00:1::99/64")
    return made


@pytest.fixture
def pings():
    made = []

    def begin(*args):
        made.append(Pings(*args))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def answers(host, address):
    with host.inside():
        return (
            subprocess.run(["ping", "-n", "-c", "1", "-W", "1", address], capture_output=True, check=False).returncode
            == 0
        )


def test_the_primary_has_the_addresses_and_nobody_else(one, two):
    assert (one.service.name, one.service.order) == ("floating-addresses", 0)
    one.acquire()
    assert one.host.addresses() == sorted([*OWN[1], *FLOATING])
    assert two.host.addresses() == OWN[2]
    one.relinquish()
    assert one.host.addresses() == OWN[1]


def test_acquire_and_relinquish_may_be_repeated(one):
    one.relinquish()
    one.acquire(1)
    one.acquire(1)
    one.acquire(2)
    assert one.held() == FLOATING
    one.relinquish()
    one.relinquish()
    assert one.host.addresses() == OWN[1]


def test_a_node_without_floating_addresses_has_no_service(segment):
    host = segment.host("node3", "eth0")
    assert host.hooks(cluster={"device": "eth0"}).role_services() == []


@pytest.mark.parametrize("address", [V4, V6])
@pytest.mark.parametrize("how", ["planned", "cut"])
def test_a_neighbour_follows_the_address_at_once(one, two, neighbour, segment, pings, wait_for, how, address):
    one.acquire()
    wait_for(lambda: answers(neighbour, address))
    assert neighbour.neighbour(address) == one.host.mac()
    running = pings(neighbour, address, 150)
    running.answered(20)
    begun = time.monotonic()
    if how == "planned":
        one.relinquish()
    else:
        segment.port(one.host, up=False)
    two.acquire(2)
    took_ms = (time.monotonic() - begun) * 1000
    # It was told: had it asked again, that would have taken it seconds.
    wait_for(lambda: neighbour.neighbour(address), two.host.mac(), deadline_s=1.0)
    answered, sent = running.result()
    longest = max((b - a - 1 for a, b in pairwise([0, *answered, sent + 1])), default=sent)
    print(f"{how} {address}: {took_ms:.0f} ms to move, {sent - len(answered)} of {sent} lost, {longest} in a row")  # noqa: T201  (pytest -rP shows it)
    assert longest <= 20  # a handful, on a machine that has other work
    assert two.held() == FLOATING


def test_an_address_that_is_given_up_is_announced_no_more(one, two, neighbour, wait_for):
    one.acquire()
    wait_for(lambda: answers(neighbour, V4))
    one.relinquish()
    two.acquire(2)
    wait_for(lambda: neighbour.neighbour(V4), two.host.mac())
    until = time.monotonic() + 1.2  # longer than a series of announcements
    while time.monotonic() < until:
        assert neighbour.neighbour(V4) == two.host.mac()
        time.sleep(0.01)


def test_what_an_earlier_daemon_left_is_removed_when_another_node_is_primary(one):
    one.acquire()
    one.restart()
    assert one.held() == FLOATING  # it may still be the primary: that shows later
    one.relinquish()
    assert one.host.addresses() == OWN[1]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_daemon_killed_while_it_acquires_leaves_nothing_to_the_next(one, monkeypatch, steps):
    do = truth._do

    def killed(links, step):
        nonlocal steps
        if not steps:
            raise SystemExit
        steps -= 1
        do(links, step)

    one.end()
    with monkeypatch.context() as patch, pytest.raises(SystemExit) if steps < 2 else contextlib.nullcontext():
        patch.setattr(truth, "_do", killed)
        one.acquire()
    one.restart()
    one.relinquish()
    assert one.host.addresses() == OWN[1]
    one.acquire()
    assert one.held() == FLOATING


def test_a_daemon_killed_while_it_relinquishes_leaves_the_rest_to_the_next(one, monkeypatch):
    one.acquire()
    one.end()
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Links, "remove_address", lambda *_: (_ for _ in ()).throw(SystemExit))
        one.relinquish()
    assert one.held() == FLOATING
    one.restart()
    one.relinquish()
    assert one.host.addresses() == OWN[1]


def test_one_address_that_cannot_be_removed_does_not_keep_the_other(one, monkeypatch):
    one.acquire()
    remove = Links.remove_address

    def refusing(self, link, address):
        if address.startswith(V4):
            raise DriverError(f"taking the address {address}: the kernel refused it")
        return remove(self, link, address)

    with monkeypatch.context() as patch, pytest.raises(DriverError, match=f"taking the address {V4}"):
        patch.setattr(Links, "remove_address", refusing)
        one.relinquish()
    assert one.held() == [f"{V4}/32"]
    one.relinquish()
    assert one.held() == []


def test_a_daemon_that_starts_again_on_the_primary_loses_nothing(one, neighbour, pings, wait_for):
    one.acquire()
    wait_for(lambda: answers(neighbour, V4))
    running = pings(neighbour, V4, 60)
    one.restart()
    one.acquire()
    answered, sent = running.result()
    assert len(answered) == sent


def test_a_floating_address_that_left_the_section_is_removed_at_the_start(one):
    one.acquire()
    one.restart(cluster=SECTION["cluster"] | {"floating": [f"{V6}/64"]})
    assert one.held() == [f"{V6}/128"]
    one.restart(cluster={"device": "eth0", "addresses": ["10.0.0.0/24"]})
    assert one.host.addresses() == ["10.0.0.1/24"]


def test_a_floating_address_on_a_device_of_an_older_section_is_relinquished_too(one):
    one.end()
    one.host.plug("old0", up=True)
    one.host.give(f"{V4}/32", "old0", proto=FLOATING_MARK)
    one.host.give(f"{V6}/128", "old0")  # by hand
    one.relinquish()
    assert one.host.addresses("old0") == []


def test_a_node_that_is_no_coordinator_any_more_keeps_none(one):
    one.acquire()
    one.restart(role="hypervisor", **SECTION)
    assert one.host.addresses() == OWN[1]
    assert one.service is None


def test_a_floating_address_given_by_hand_is_relinquished_too(one):
    one.host.give(f"{V4}/24")
    one.acquire()
    assert [a for a in one.host.addresses() if a.startswith(V4)] == [f"{V4}/24"]
    one.relinquish()
    assert one.host.addresses() == OWN[1]


def test_an_own_address_that_was_added_after_the_floating_one_survives_it(one):
    one.host.take("10.0.0.1/24")
    one.end()
    one.host.give(f"{V4}/24")
    one.host.give("10.0.0.1/24")  # a secondary address now: the kernel removes it with the first
    one.relinquish()
    assert one.host.addresses() == OWN[1]


def test_the_primary_keeps_its_addresses_whatever_happens_to_the_device(one, neighbour, wait_for):
    one.acquire()
    one.host.set("eth0", state="down")
    wait_for(lambda: (one.held(), one.host.link()["state"]), (FLOATING, "up"))
    wait_for(lambda: answers(neighbour, V6))
    one.host.remove("eth0")
    one.host.plug("eth0")
    wait_for(one.held, FLOATING)
    wait_for(lambda: neighbour.neighbour(V4) in ("", one.host.mac()))
    assert answers(neighbour, V4)


def test_neighbours_are_told_of_another_mac_address(one, neighbour, wait_for):
    one.acquire()
    wait_for(lambda: answers(neighbour, V4) and answers(neighbour, V6))
    one.host.set("eth0", address="02:00:00:00:00:42")
    wait_for(lambda: (neighbour.neighbour(V4), neighbour.neighbour(V6)), ("02:00:00:00:00:42",) * 2)


def test_a_node_that_is_not_primary_does_not_bring_the_address_back(one):
    one.acquire()
    one.relinquish()
    with one.host.inside():
        assert all(condition.ok for condition in one.hooks.health_checks())
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        assert one.held() == []


def test_the_host_itself_speaks_from_its_own_addresses(one):
    one.acquire()
    with one.host.inside():
        for target, own in (("10.0.0.99", "10.0.0.1"), ("fd00:1::99", "fd00:1::1")):
            said = subprocess.run(["ip", "-o", "route", "get", target], capture_output=True, text=True, check=True)
            assert f" src {own} " in said.stdout


def test_acquire_without_the_device_fails_and_is_made_up_for_when_it_comes(segment, wait_for):
    node = Coordinator(segment, 1)
    node.restart(
        cluster=SECTION["cluster"],
        upstream={"device": "wan0", "addresses": ["203.0.113.1/24"], "floating": ["203.0.113.9"]},
    )
    with pytest.raises(DriverError, match="network upstream: there is no device wan0"):
        node.acquire()
    assert node.held() == FLOATING
    node.host.plug("wan0")
    wait_for(lambda: node.host.addresses("wan0"), ["203.0.113.1/24", "203.0.113.9/32"])
    node.acquire()
    node.relinquish()
    assert node.host.addresses("wan0") == ["203.0.113.1/24"]


def test_relinquish_without_the_device_is_success(one):
    one.acquire()
    one.end()
    one.host.remove("eth0")
    one.relinquish()


def test_acquire_without_a_carrier_is_success_and_announced_when_it_is_back(one, segment, neighbour, wait_for):
    segment.port(one.host, up=False)
    wait_for(lambda: one.host.link().get_attr("IFLA_OPERSTATE") != "UP")
    one.acquire()
    assert one.held() == FLOATING
    segment.port(one.host, up=True)
    wait_for(lambda: answers(neighbour, V4) and answers(neighbour, V6))


def test_a_second_holder_is_told(one, two, wait_for):
    one.acquire()
    two.acquire()

    def condition():
        with one.host.inside():
            return next(c for c in one.hooks.health_checks() if c.type == "Network/cluster")

    wait_for(lambda: condition().reason, "DuplicateAddress")
    said = condition().message
    assert all(
        f"{address} is also the address of a machine with MAC address {two.host.mac()}" in said for address in (V4, V6)
    )


def test_the_primary_tells_neighbours_again_when_another_machine_has_its_address(one, two, neighbour, wait_for):
    one.acquire()
    one.end()  # killed: its addresses stay
    two.acquire(2)
    assert answers(neighbour, V4)
    assert answers(neighbour, V6)
    wait_for(lambda: any(thread.name == "pvc-hostnet-announce" for thread in threading.enumerate()), False)
    with one.host.inside():  # as its answer to the next question would
        announce("eth0", [V4, V6], one.host.mac(), times=1)
    wait_for(lambda: (neighbour.neighbour(V4), neighbour.neighbour(V6)), (one.host.mac(),) * 2)
    with two.host.inside():
        two.hooks.health_checks()
    wait_for(lambda: (neighbour.neighbour(V4), neighbour.neighbour(V6)), (two.host.mac(),) * 2)


def test_an_own_address_that_is_wrong_does_not_make_acquire_fail(segment):
    node = Coordinator(segment, 1)
    node.end()
    node.host.take("10.0.0.1/24")
    node.host.give("10.0.0.1/16")
    node.restart()
    node.acquire()
    assert node.held() == FLOATING


def test_status_says_who_holds_them(one, two):
    one.acquire()
    for node, held in ((one, True), (two, False)):
        with node.host.inside():
            status = node.hooks.queries()["hostnet.status"]({})
        assert status["primary"] is held
        assert [f["held"] for f in status["networks"][0]["floating"]] == [held, held]
