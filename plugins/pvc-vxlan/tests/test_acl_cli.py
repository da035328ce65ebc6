"""``pvc network acl``: what it changes and prints, on a cluster whose primary answers from a table."""

import subprocess
import sys

import pytest

from pvc_core.model.errors import Conflict, Unavailable

COUNTERS, CHECK = "vxlan.counters", "vxlan.check-rules"


class Acl:
    def __init__(self, cluster):
        self.cluster = cluster
        cluster.answers = {COUNTERS: {}, CHECK: []}

    def __call__(self, *words):
        return self.cluster(*words)

    def add(self, *words):
        """Add a rule and return its id."""
        ran = self("add", "lan", *words, "-f", "json")
        assert ran.status == 0, ran.err
        return ran.json()["id"]

    def network(self):
        return self.cluster.network()

    def rules(self):
        return self.network()["parameters"].get("rules", [])


@pytest.fixture
def pvc(monkeypatch, cli_support):
    return Acl(cli_support.Cluster(monkeypatch, "acl"))


def test_an_added_rule_is_in_the_network_with_what_was_given_only(pvc):
    given = ("--protocol", "tcp", "--source", "10.0.0.0/8", "--source", "192.0.2.1", "--port", "22", "--port", "80-90")
    id_ = pvc.add("--in", *given, "--order", "5", "--comment", "the site")
    assert pvc.rules() == [
        {
            "id": id_,
            "direction": "in",
            "order": 5,
            "protocol": "tcp",
            "source": ["10.0.0.0/8", "192.0.2.1"],
            "ports": ["22", "80-90"],
            "comment": "the site",
        }
    ]
    other = pvc.add("--out", "--raw", "tcp dport 25 drop")
    assert pvc.rules()[1] == {"id": other, "direction": "out", "raw": "tcp dport 25 drop"}
    assert len({id_, other}) == 2
    ran = pvc("add", "lan", "--out")
    assert f"rule {pvc.rules()[2]['id']} is added to network lan" in ran.out


def test_a_raw_rule_is_looked_at_by_nft_of_the_gateway_before_anything_changes(pvc):
    kept = pvc.add("--in")
    pvc.cluster.answers[CHECK] = ["rule x is refused: nft says: syntax error"]
    ran = pvc("add", "lan", "--in", "--raw", "tcp dport nosuch accept")
    assert ran.status == 2
    assert "nft says: syntax error; nothing was changed" in ran.err
    assert [rule["id"] for rule in pvc.rules()] == [kept]
    (query, node, arguments) = pvc.cluster.asked[-1]
    assert (query, node, arguments["network"]) == (CHECK, "hv1", pvc.cluster.id)
    assert [rule.get("raw") for rule in arguments["rules"]] == [None, "tcp dport nosuch accept"]


def test_a_raw_rule_that_nobody_can_look_at_comes_with_a_word_on_that(pvc):
    pvc.cluster.answers[CHECK] = Unavailable("hv1 does not answer")
    ran = pvc("add", "lan", "--in", "--raw", "accept")
    assert ran.status == 0
    assert "not looked at by nft: hv1 does not answer" in ran.err
    assert pvc("add", "lan", "--out", "--raw", "jump elsewhere").status == 2
    assert len(pvc.rules()) == 1


def test_a_change_is_waited_for_and_what_is_wrong_then_is_told(pvc):
    pvc.cluster.problem = "rule x is left out"
    ran = pvc("add", "lan", "--in")
    assert (ran.status, "warning: hv1: rule x is left out" in ran.err) == (0, True)
    pvc.cluster.takes_over = False
    ran = pvc("add", "lan", "--in", "--timeout", "300ms")
    assert ran.status == 1
    assert "0 of 1 nodes have taken it over: see pvc network info lan" in ran.err
    assert len(pvc.rules()) == 2
    assert pvc("add", "lan", "--in", "--no-wait").status == 0


def test_a_rule_goes_one_way(pvc):
    ran = pvc("add", "lan", "--action", "drop")
    assert ran.status == 2
    assert "--in or --out" in ran.err


def test_rules_are_removed_by_id(pvc):
    ids = [pvc.add("--in", "--order", str(number)) for number in (1, 2, 3)]
    assert pvc("remove", "lan", ids[0], ids[2]).status == 0
    assert [rule["id"] for rule in pvc.rules()] == [ids[1]]
    ran = pvc("remove", "lan", ids[0])
    assert (ran.status, ids[1] in ran.err) == (1, True)
    assert pvc("remove", "lan", ids[1]).status == 0
    assert pvc.network()["parameters"] == {"vni": 7}


def test_a_modified_rule_keeps_its_place_and_what_is_not_given(pvc):
    first = pvc.add("--in", "--protocol", "tcp", "--port", "22", "--comment", "ssh")
    second = pvc.add("--in", "--action", "drop")
    assert pvc("modify", "lan", first, "--port", "2222", "--action", "reject", "--clear", "comment").status == 0
    assert pvc.rules() == [
        {"id": first, "direction": "in", "action": "reject", "protocol": "tcp", "ports": ["2222"]},
        {"id": second, "direction": "in", "action": "drop"},
    ]
    assert pvc("modify", "lan", first, "--action", "accept", "--protocol", "any", "--clear", "port").status == 0
    assert pvc.rules()[0] == {"id": first, "direction": "in"}
    assert pvc("modify", "lan", first).status == 2
    assert pvc("modify", "lan", first, "--clear", "port", "--port", "1").status == 2
    assert pvc("modify", "lan", "nope", "--port", "1").status == 1


def test_list_shows_rules_in_their_order_with_their_counters(pvc):
    late = pvc.add("--in", "--order", "200", "--action", "drop")
    early = pvc.add("--in", "--order", "50", "--protocol", "tcp", "--port", "80", "--comment", "the site")
    out = pvc.add("--out", "--raw", "tcp dport 25 drop")
    pvc.cluster.answers[COUNTERS] = {late: [3, 180], early: [7, 420]}
    ran = pvc("list", "lan")
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines] == ["ID", early, late, out]
    assert lines[1].split() == [early, "in", "50", "accept", "tcp", "any", "any", "80", "7", "420", "the", "site"]
    assert lines[3].split()[:4] == [out, "out", "100", "raw"]
    assert "unknown" in lines[3]
    assert pvc.cluster.asked[-1] == (COUNTERS, "hv1", {"network": pvc.cluster.id})
    found = pvc("list", "lan", "-f", "json").json()
    assert [row["packets"] for row in found] == [7, 3, None]


@pytest.mark.parametrize("failure", [Unavailable("node hv1 is not alive"), "no primary", "nonsense"])
def test_list_is_there_while_nobody_counts(pvc, failure):
    id_ = pvc.add("--in")
    if failure == "no primary":
        pvc.cluster.primary = None
    else:
        pvc.cluster.answers[COUNTERS] = {id_: "many"} if failure == "nonsense" else failure
    ran = pvc("list", "lan")
    assert ran.status == 0
    assert ran.out.splitlines()[1].split()[-3:] == ["unknown", "unknown", "-"]
    assert "counters are not known now" in ran.err


def test_a_network_without_rules_says_what_that_means(pvc):
    assert "nobody outside reaches its guests" in pvc("list", "lan").err
    assert pvc.cluster.asked == []


def test_only_managed_networks_have_rules(pvc):
    ran = pvc("add", "wire", "--in")
    assert ran.status == 2
    assert "driver bridge" in ran.err
    assert pvc("list", "nothing").status == 1


def test_no_rule_is_lost_when_two_are_added_at_once(pvc):
    theirs = {"id": "them", "direction": "out"}
    pvc.cluster.before_modify.append(lambda modify: modify(parameters={"rules": [theirs]}))
    mine = pvc.add("--in")
    assert [rule["id"] for rule in pvc.rules()] == ["them", mine]
    assert pvc.network()["generation"] == 3


def test_it_gives_up_when_others_are_always_faster(pvc):
    calls = []

    def busy(modify):
        calls.append(1)
        raise Conflict("changed meanwhile")

    pvc.cluster.before_modify.extend([busy] * 20)
    ran = pvc("add", "lan", "--in")
    assert ran.status == 1
    assert "changed meanwhile" in ran.err
    assert 1 < len(calls) < 20
    assert pvc.rules() == []


def test_its_commands_need_no_driver():
    code = "import sys, pvc_vxlan.cli.acl; sys.exit(any(m.split('.')[0] in ('pyroute2', 'pvc_netdev') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
