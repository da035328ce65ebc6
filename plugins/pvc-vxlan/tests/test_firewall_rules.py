"""Which rules are taken, and the table they become."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pvc_core.model.errors import InvalidRequest
from pvc_vxlan.firewall.flows import marks
from pvc_vxlan.firewall.raw import ours, tokens
from pvc_vxlan.firewall.render import digest_of, render, rule_at
from pvc_vxlan.firewall.validate import check_rules
from pvc_vxlan.network import Rule, VxlanNetwork

NETWORK = VxlanNetwork(vni=9, ipv4="10.0.0.0/24", ipv6="fd00::/64")
RULE = Rule(id="r1", direction="in", protocol="tcp", ports=("22",))


def rule(**fields):
    return Rule(**{"id": "r1", "direction": "in", **fields})


def raw(text):
    return rule(raw=text)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"source": ("10.0.0.0/8", "192.0.2.1"), "destination": ("0.0.0.0/0",)},
        {"source": ("2001:db8::/32",), "protocol": "icmpv6"},
        {"protocol": "udp", "ports": ("1", "65535", "100-200"), "source_ports": ("53",)},
        {"protocol": "gre", "action": "reject"},
        {"comment": "what it's for: a; b {c} é"},
    ],
)
def test_good_rules_are_taken(fields):
    check_rules("lan", [rule(**fields), rule(**{**fields, "id": "r2"})])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": "a b"}, "'a b' is no id"),
        ({"id": ""}, "is no id"),
        ({"id": "x" * 33}, "is no id"),
        ({"id": "x\n"}, "is no id"),
        ({"id": 'x"'}, "is no id"),
        ({"source": ("10.0.0.0/33",)}, "source '10.0.0.0/33' is neither"),
        ({"source": ("10.0.0.1/8",)}, "did you mean 10.0.0.0/8"),
        ({"destination": ("web",)}, "destination 'web'"),
        ({"source": ("fe80::1%eth0",)}, "neither an address"),
        ({"source": ("10.0.0.0/8", "fd00::/8")}, "a rule for each"),
        ({"source": ("10.0.0.0/8",), "destination": ("fd00::/8",)}, "a rule for each"),
        ({"source": ("10.0.0.0/8",), "protocol": "icmpv6"}, "a rule for each"),
        ({"source": ("fd00::/8",), "protocol": "icmp"}, "a rule for each"),
        ({"ports": ("22",)}, "protocol any has no ports"),
        ({"protocol": "icmp", "source_ports": ("22",)}, "protocol icmp has no ports"),
        ({"protocol": "tcp", "ports": ("0",)}, "'0' is neither a port"),
        ({"protocol": "tcp", "ports": ("65536",)}, "from 1 to 65535"),
        ({"protocol": "tcp", "ports": ("90-80",)}, "'90-80'"),
        ({"protocol": "tcp", "ports": ("ssh",)}, "'ssh'"),
        ({"protocol": "tcp", "ports": ("22\n",)}, "neither a port"),
        ({"comment": 'a "b"'}, "comment is one line"),
        ({"comment": "a\nb"}, "comment is one line"),
        ({"order": 0}, "order 0"),
        ({"raw": "accept", "protocol": "tcp", "ports": ("1",)}, "no protocol and no ports"),
        ({"raw": "accept", "action": "drop"}, "no action"),
        ({"raw": "accept", "source": ("10.0.0.0/8",)}, "no source"),
        ({"raw": "  "}, "is empty"),
    ],
)
def test_bad_rules_are_refused_with_their_reason(fields, said):
    with pytest.raises(InvalidRequest) as caught:
        check_rules("lan", [Rule(id="fine", direction="out"), rule(**fields)])
    assert said in str(caught.value)
    assert "network lan" in str(caught.value)
    if "id" not in fields:
        assert "rule r1" in str(caught.value)


def test_ids_are_unique():
    with pytest.raises(InvalidRequest, match="rule r1: there are two"):
        check_rules("lan", [RULE, replace(RULE, direction="out")])


def test_there_is_an_end_to_rules():
    with pytest.raises(InvalidRequest, match="1001 rules are too many"):
        check_rules("lan", [rule(id=f"r{number}") for number in range(1001)])


@pytest.mark.parametrize(
    "text",
    [
        "accept",
        "tcp dport { 22, 80-90 } ct state new limit rate 10/minute accept",
        "ip saddr 10.0.0.0/8 tcp flags & (fin | syn) == syn drop",
        'log prefix "a; b {c} # $d"',
        "tcp dport 25 reject with tcp reset",
        "icmp type { echo-request, redirect } accept",
        "ip dscp set cs1",
        "meta mark set 5 accept",
        "ip saddr { 10.0.0.1 } tcp dport { 1 } return",
    ],
)
def test_whole_rules_in_nfts_language_are_taken(text):
    check_rules("lan", [raw(text)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accept; drop", "`;` must not be"),
        ("accept\nadd table x", "one line"),
        ("accept\x00", "one line"),
        ("accept\u2028drop", "one line"),
        ("accept }", "braces"),
        ("tcp dport { 22 accept", "braces"),
        ("} chain x {", "braces"),
        ("ip saddr { { 1 } }", "one in another"),
        ("accept # it", "`#`"),
        ("ip saddr $x accept", "`$`"),
        ("accept \\", "`\\`"),
        ('log prefix "x accept', "quotation mark"),
        ('log prefix "x" "; flush ruleset', "quotation mark"),
        ("jump other", "`jump`"),
        ("goto other", "`goto`"),
        ("tcp dport vmap { 22 : accept }", "`vmap`"),
        ("flush ruleset", "`flush`"),
        ('include "/etc/passwd"', "`include`"),
        ("define x = 1", "`define`"),
        ("add rule inet pvc in accept", "`add`"),
        ("table inet x { }", "`table`"),
        ('accept comment "r2"', "`comment`"),
        ("ct mark set 1 accept", "`ct mark`"),
        ("ct  mark  set 1 accept", "`ct mark`"),
        ("notrack", "`notrack`"),
        ("queue num 1", "`queue`"),
        ("accept drop", "one verdict"),
        ("accept tcp dport 22", "last word"),
        ("x" * 1001, "1001 characters"),
    ],
)
def test_no_raw_rule_leaves_its_rule(text, said):
    with pytest.raises(InvalidRequest) as caught:
        check_rules("lan", [raw(text)])
    assert said in str(caught.value)
    assert "rule r1" in str(caught.value)


@given(st.text(alphabet='ab{}";,#$\\ \n\t\r=!.-0', min_size=1, max_size=40))
def test_whatever_is_taken_stays_one_line_of_one_chain(text):
    try:
        check_rules("lan", [raw(text)])
    except InvalidRequest:
        return
    rendered = render(replace(NETWORK, rules=(raw(text),)))
    empty = render(NETWORK)
    assert len(rendered.splitlines()) == len(empty.splitlines()) + 4
    (line,) = [line for line in rendered.splitlines() if line.endswith(' comment "r1"')]
    bare = re.sub(r'"[^"]*"', "", line)
    assert bare.count("{") == bare.count("}")
    assert ";" not in bare
    assert "#" not in bare


def test_a_raw_rule_counts_and_marks_before_its_verdict():
    def mark(accepted):
        return "MARK" if accepted else "REFUSED"

    assert ours("tcp dport 22 accept", "c", mark) == 'tcp dport 22 counter name "c" MARK accept'
    assert ours("drop", "c", mark) == 'counter name "c" REFUSED drop'
    assert ours("reject with tcp reset", "c", mark) == 'counter name "c" REFUSED reject with tcp reset'
    assert ours('log prefix "x , accept"', "c", mark) == 'log prefix "x , accept" counter name "c"'
    assert ours("tcp dport 22 return", "c", mark) == 'tcp dport 22 counter name "c" return'
    assert tokens('tcp dport {22,80} log prefix "a b"') == [
        "tcp",
        "dport",
        "{",
        "22",
        ",",
        "80",
        "}",
        "log",
        "prefix",
        '"a b"',
    ]


def test_the_mark_of_connections_changes_with_what_rules_decide():
    first = marks([RULE])
    assert first == marks([replace(RULE, comment="words")])
    assert first != marks([replace(RULE, ports=("23",))])
    assert first != marks([])
    assert marks([RULE, replace(RULE, id="r2")]) != marks([replace(RULE, id="r2"), RULE])
    assert first.accepted != first.refused
    assert first.accepted > 0


def test_a_table_is_known_by_what_it_does():
    text = render(replace(NETWORK, rules=(RULE,)))
    assert digest_of(text) == digest_of(render(replace(NETWORK, rules=(RULE,)), {"r1": (5, 6)}))
    assert digest_of(text) == digest_of(render(replace(NETWORK, rules=(replace(RULE, comment="x"),))))
    assert digest_of(text) != digest_of(render(NETWORK))
    assert digest_of(text) != digest_of(render(replace(NETWORK, rules=(RULE,), dns=False)))


def test_counters_go_on_from_what_was_counted():
    text = render(replace(NETWORK, rules=(RULE,)), {"r1": (5, 600), "*in": (7, 8), "gone": (1, 1)})
    assert "counter rule-r1 { packets 5 bytes 600; }" in text
    assert "counter default-in { packets 7 bytes 8; }" in text
    assert "gone" not in text


def test_a_line_tells_its_rule():
    text = render(
        replace(NETWORK, rules=(raw('log prefix " comment "'), Rule(id="b", direction="out", action="reject")))
    )
    found = [rule_at(text, number) for number in range(len(text.splitlines()) + 2)]
    assert [id_ for id_ in found if id_] == ["r1", *["b"] * 4]


def test_prefixes_and_ports_that_overlap_become_one():
    wide = rule(protocol="tcp", source=("10.0.0.0/8", "10.1.0.0/16"), ports=("90-100", "80-95", "101", "22"))
    text = render(replace(NETWORK, rules=(wide,)))
    assert "ct original ip saddr { 10.0.0.0/8 } meta l4proto tcp ct original proto-dst { 22, 80-101 } counter" in text


def test_all_addresses_of_a_family_are_the_family():
    text = render(replace(NETWORK, rules=(rule(source=("::/0", "fd00::/8")),)))
    assert 'meta nfproto ipv6 counter name "rule-r1"' in text


def test_a_network_of_one_family_lets_no_other_in():
    text = render(VxlanNetwork(vni=9, ipv6="fd00::/64"))
    assert 'iifname "net0" ip saddr != { 0.0.0.0 }' in text
    assert "10." not in text


def test_transfers_are_for_peers_only():
    text = render(replace(NETWORK, transfer_peers=("192.0.2.1", "fd00:9::1", "192.0.2.1")))
    assert 'iifname "up0" ip saddr { 192.0.2.1 } meta l4proto { tcp, udp } th dport 53 accept' in text
    assert 'iifname "up0" ip6 saddr { fd00:9::1 } meta l4proto { tcp, udp } th dport 53 accept' in text
    assert not [line for line in render(NETWORK).splitlines() if "up0" in line and "53" in line]
