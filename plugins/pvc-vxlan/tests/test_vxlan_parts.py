"""The parts of the driver that decide: whose gateways, which guards, which rules, what FRR is to do."""

import logging
import threading

import pytest
from msgspec.structs import replace

from pvc_core.model.vm import Nic
from pvc_core.plugin import ConfigError, Context, NetworkNic, NodeInfo
from pvc_vxlan import guards, rules
from pvc_vxlan.config import Upstream, VxlanConfig
from pvc_vxlan.fabric import FabricMember
from pvc_vxlan.firewall.table import RuleRefused
from pvc_vxlan.guards import device_of, guard_of, wants_guard
from pvc_vxlan.network import Reservation, Rule, VxlanNetwork
from pvc_vxlan.overlay import Underlay
from pvc_vxlan.repeated import Repeated
from pvc_vxlan.role import GatewayRole
from pvc_vxlan.rules import Rules

LOG = logging.getLogger("pvc_vxlan")
MAC, OTHER = "52:54:00:00:00:01", "52:54:00:00:00:02"
NETWORK = VxlanNetwork(vni=7, ipv4="10.1.0.0/24", ipv6="fd00:1::/64")


# --- the role ---------------------------------------------------------------------------------------------------------


def test_a_gateway_that_is_being_made_while_the_role_is_given_up_is_removed():
    made, removed = set(), threading.Event()
    entered, goes_on = threading.Event(), threading.Event()

    def end_one(network):
        made.discard(network)
        removed.set()

    role = GatewayRole(begin=lambda: None, end=made.clear, end_one=end_one)
    role.acquire(1)

    def make():
        with role.turn("net") as here:
            assert here
            entered.set()
            goes_on.wait(5)
            made.add("net")

    maker = threading.Thread(target=make)
    maker.start()
    entered.wait(5)
    giver = threading.Thread(target=role.relinquish)
    giver.start()
    assert not removed.wait(0.1)
    goes_on.set()
    giver.join(5)
    maker.join(5)
    assert removed.is_set()
    assert made == set()
    with role.turn("net") as here:
        assert not here


def test_the_role_that_comes_has_all_networks_looked_at():
    calls = []
    role = GatewayRole(begin=lambda: calls.append("begin"), end=lambda: calls.append("end"), end_one=calls.append)
    assert not role.held
    role.acquire(1)
    assert role.held
    role.relinquish()
    role.relinquish()
    assert (calls, role.held) == (["begin", "end", "end"], False)


# --- guards -----------------------------------------------------------------------------------------------------------


def nic(mac, *addresses, vm="web", node="hv1", **parameters):
    return NetworkNic(
        vm=vm, vm_name=vm, nic=Nic(network="lan", mac=mac, addresses=addresses, parameters=parameters), node=node
    )


def test_a_nic_may_have_its_own_addresses_and_those_reserved_for_it():
    network = VxlanNetwork(
        vni=7,
        ipv4="10.1.0.0/24",
        ipv6="fd00:1::/64",
        reservations=(
            Reservation(mac=MAC, address6="fd00:1::5"),
            Reservation(mac="52:54:00:00:00:09", address="10.1.0.9"),
        ),
    )
    all_ = [nic(MAC, "10.1.0.5"), nic(OTHER, "10.1.0.6")]
    found = guard_of(network, all_[0].nic, all_)
    assert (found.device, found.mac) == (device_of(MAC), MAC)
    assert found.addresses == ("10.1.0.5",)
    # Guests make IPv6 addresses for themselves there, unless the network says otherwise.
    assert guard_of(replace(network, slaac=False), all_[0].nic, all_).addresses == ("10.1.0.5", "fd00:1::5")
    assert found.prefixes == ("10.1.0.0/24", "fd00:1::/64")
    assert set(found.denied) == {"10.1.0.1", "fd00:1::1", "10.1.0.6", "10.1.0.9"}


def test_a_nic_that_gets_an_address_while_its_guest_runs_keeps_what_it_has_leased():
    all_ = [nic(MAC, "10.1.0.5"), nic(OTHER, "10.1.0.6")]
    leased = {MAC: {"10.1.0.100", "10.1.0.6"}, OTHER: {"10.1.0.101"}}
    assert guard_of(NETWORK, all_[0].nic, all_, lambda: leased).addresses == ("10.1.0.100", "10.1.0.5")
    assert guard_of(NETWORK, nic("52:54:00:00:00:03").nic, all_, lambda: leased).addresses == ()


def test_a_device_has_a_name_that_the_kernel_takes():
    assert device_of("52:54:00:AB:cd:ef") == "pvc525400abcdef"
    assert len(device_of(MAC)) == 15


@pytest.mark.parametrize(
    ("network", "said", "guarded"),
    [(True, None, True), (False, None, False), (True, "false", False), (False, "true", True)],
)
def test_a_nic_can_have_another_rule_than_its_network(network, said, guarded):
    parameters = {} if said is None else {"spoof_check": said}
    wanted = VxlanNetwork(vni=7, spoof_check=network)
    assert wants_guard(wanted, nic(MAC, **parameters).nic) is guarded


def test_guards_follow_what_others_have(monkeypatch):
    there = {}
    monkeypatch.setattr(guards, "guard", lambda nics: there.update({each.device: each for each in nics}))
    monkeypatch.setattr(guards, "unguard", lambda device: there.pop(device, None))
    monkeypatch.setattr(guards, "guarded", lambda: set(there))
    made = guards.Guards()
    mine, elsewhere = nic(MAC), nic(OTHER, "10.1.0.6", node="hv2")
    made.attach(NETWORK, mine.nic, [mine])
    assert "10.1.0.6" not in there[device_of(MAC)].denied
    made.ensure(NETWORK, [mine, elsewhere])
    assert "10.1.0.6" in there[device_of(MAC)].denied
    assert device_of(OTHER) not in there
    made.ensure(VxlanNetwork(vni=7, spoof_check=False), [mine, elsewhere])
    assert there == {}
    made.attach(NETWORK, mine.nic, [mine])
    made.detach(mine.nic)
    assert there == {}


@pytest.mark.parametrize("begun_anew", [False, True])
def test_guards_that_somebody_removed_are_put_back(monkeypatch, begun_anew):
    there = {}
    monkeypatch.setattr(guards, "guard", lambda nics: there.update({each.device: each for each in nics}))
    monkeypatch.setattr(guards, "guarded", lambda: set(there))
    monkeypatch.setattr(guards, "_SEEN_S", 0.0)
    here, elsewhere = nic(MAC, node="hv1"), nic(OTHER, node="hv2")
    made = guards.Guards("hv1")
    made.attach(NETWORK, here.nic, [here])
    there.clear()
    if begun_anew:
        made = guards.Guards("hv1")
    made.ensure(NETWORK, [here, elsewhere])
    assert there.keys() == {device_of(MAC)}


# --- rules ------------------------------------------------------------------------------------------------------------


class FakeTable:
    """Stands for nft in a namespace: refuses rules whose raw text is ``bad``."""

    def __init__(self):
        self.applied = None

    def ensure(self, namespace, network):
        bad = next((rule for rule in network.rules if rule.raw == "bad"), None)
        if bad is not None:
            raise RuleRefused(f"rule {bad.id} is refused", bad.id)
        self.applied = [rule.id for rule in network.rules]

    def present(self, namespace):
        return self.applied is not None


@pytest.fixture
def table(monkeypatch):
    fake = FakeTable()
    monkeypatch.setattr(rules.table, "ensure", fake.ensure)
    monkeypatch.setattr(rules.table, "present", fake.present)
    monkeypatch.setattr(rules.table, "digest", lambda network: str(network.rules))
    return fake


def with_rules(*given):
    return VxlanNetwork(vni=7, rules=tuple(Rule(id=id_, direction="in", raw=raw) for id_, raw in given))


def test_a_refused_rule_leaves_the_rules_before_in_force(table):
    made = Rules(LOG)
    made.apply("net", with_rules(("a", "accept")))
    made.apply("net", with_rules(("a", "accept"), ("b", "bad")))
    assert table.applied == ["a"]
    assert made.problems("net") == ["rule b is refused; the rules before that go on"]
    assert made.problems("other") == []
    made.apply("net", with_rules(("c", "accept")))
    assert (table.applied, made.problems("net")) == (["c"], [])


def test_a_refused_rule_is_forgotten_when_it_is_taken_back(table):
    made = Rules(LOG)
    made.apply("net", with_rules(("a", "accept")))
    made.apply("net", with_rules(("a", "accept"), ("b", "bad")))
    assert made.problems("net")
    made.apply("net", with_rules(("a", "accept")))
    assert (table.applied, made.problems("net")) == (["a"], [])


def test_a_gateway_that_has_just_come_gets_all_rules_but_the_refused_ones(table):
    made = Rules(LOG)
    made.apply("net", with_rules(("a", "bad"), ("b", "accept"), ("c", "bad")))
    assert table.applied == ["b"]
    (said,) = made.problems("net")
    assert "rule a is refused; it is left out" in said
    assert "rule c is refused; it is left out" in said


# --- the fabric -------------------------------------------------------------------------------------------------------

UNDERLAY = Underlay(address="10.0.0.1", device="eth0", mtu=1500, prefix="10.0.0.0/24")


def member(name="hv1", role="coordinator", **config):
    info = NodeInfo(
        name=name,
        role=role,
        address="10.0.0.1",
        coordinators=("hv1", "hv2"),
        coordinator_addresses={"hv1": "10.0.0.1", "hv2": "10.0.0.2"},
    )
    context = Context(node=info, log=LOG, run=lambda *_a, **_k: None, wake=lambda *_: None)
    return FabricMember(context, VxlanConfig(**config))


def test_coordinators_are_reflectors_for_the_underlays_prefix():
    fabric = member().wanted(UNDERLAY)
    assert fabric.is_reflector
    assert fabric.listen == ("10.0.0.0/24",)
    assert [(peer.name, peer.address) for peer in fabric.reflectors] == [("hv1", "10.0.0.1"), ("hv2", "10.0.0.2")]
    assert (fabric.router_id, fabric.local, fabric.asn) == ("10.0.0.1", "10.0.0.1", 65000)
    assert member(fabric=("10.0.0.0/8",)).wanted(UNDERLAY).listen == ("10.0.0.0/8",)


def test_a_hypervisor_is_a_client_and_speaks_to_nobody_outside():
    upstream = (Upstream(address="192.0.2.1", asn=65100),)
    fabric = member("hv9", "hypervisor", upstream=upstream).wanted(UNDERLAY)
    assert (fabric.is_reflector, fabric.listen, fabric.upstream) == (False, (), ())
    assert len(member(upstream=upstream).wanted(UNDERLAY).upstream) == 1


def test_passwords_come_from_files(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("word\n")
    upstream = (Upstream(address="192.0.2.1", asn=65100, password_file=str(secret)),)
    fabric = member(password_file=str(secret), upstream=upstream).wanted(UNDERLAY)
    assert (fabric.password, fabric.upstream[0].password) == ("word", "word")
    with pytest.raises(ConfigError, match=r"password_file: cannot read .*/none"):
        member(password_file=str(tmp_path / "none")).wanted(UNDERLAY)


def test_reflectors_of_another_version_of_ip_are_told_as_a_condition():
    made = member(reflectors={"hv2": "fd00::2"})
    made.tend(UNDERLAY)
    (condition,) = made.conditions
    assert (condition.ok, condition.reason) == (False, "Misconfigured")
    assert "hv2 (fd00::2) are of different versions of IP" in condition.message


def test_without_evpn_frr_is_for_routers_outside_only():
    upstream = (Upstream(address="192.0.2.1", asn=65100),)
    assert not member(control="flood").needs_frr
    assert not member("hv9", "hypervisor", control="flood", upstream=upstream).needs_frr
    outside = member(control="flood", upstream=upstream)
    assert outside.needs_frr
    fabric = outside.wanted(UNDERLAY)
    assert (fabric.evpn, fabric.reflectors, fabric.is_reflector) == (False, (), False)


# --- what is done again and again -------------------------------------------------------------------------------------


def test_a_round_that_fails_is_told_once_and_the_next_one_comes(caplog):
    rounds, enough = [], threading.Event()

    def call():
        rounds.append(len(rounds))
        if len(rounds) == 5:
            enough.set()
        if len(rounds) in (1, 2):
            raise ConfigError("wrong")
        if len(rounds) == 4:
            raise KeyError("defect")

    made = Repeated("look", 0.001, call, LOG)
    with caplog.at_level(logging.WARNING, "pvc_vxlan"):
        made.start()
        made.start()
        assert enough.wait(5)
        made.stop()
    said = [record.getMessage() for record in caplog.records]
    assert said == ["look: wrong", "look"]
    after = len(rounds)
    made.soon()
    assert len(rounds) == after
