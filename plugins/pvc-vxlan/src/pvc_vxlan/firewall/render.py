"""The firewall's table as text for ``nft -f``: pure.  Source: nft(8); chains and hooks: wiki.nftables.org.

What is always so: guests may begin connections to anywhere (``out``), nobody outside may begin one to them (``in``).
A network's rules come before these defaults.  Packets that the gateway sends back into the network they came from pass: guests of
one network reach each other without the gateway too, so there is nothing to protect, and one end of such a connection may be
all that the gateway sees.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import collapse_addresses
from typing import Any, Final

from pvc_vxlan.firewall import flows, services
from pvc_vxlan.firewall.raw import ours
from pvc_vxlan.firewall.validate import family, port_range, prefix
from pvc_vxlan.names import GUEST_SIDE, HOST_SIDE
from pvc_vxlan.network import Direction, Rule, VxlanNetwork, by_order

TABLE: Final = "inet pvc"
RULE: Final = "rule-"
"""Counters of rules are named so, and by the rule's id."""
DIGEST: Final = "digest-"
"""The name of a counter that counts nothing: it tells which text the table was made from."""
ADOPTING: Final = "adopting-"
"""Name of the counter of packets that were adopted; it ends with the time until which that is done."""
DEFAULTS: Final[dict[str, str]] = {
    "*in": "default-in",
    "*out": "default-out",
    "*spoofed": "spoofed",
    "*invalid": "invalid",
}
"""What else is counted, as it is called beside ids of rules -> name of the counter."""

Counted = Mapping[str, tuple[int, int]]
"""Id of a rule, or a key of ``DEFAULTS`` -> packets, bytes."""


def render(network: VxlanNetwork, counted: Counted | None = None, *, adopt_until: int = 0) -> str:
    """Return the table, which replaces what there is in one transaction; counters go on from ``counted``.

    ``adopt_until``: seconds since the epoch until which open connections are adopted; 0: none is.

    The rules must have passed ``check_rules``.  Each of their lines ends with its id as comment.
    """
    digest = hashlib.blake2s("\n".join(_chains(network, 0)).encode(), digest_size=8).hexdigest()
    body = _chains(network, adopt_until)
    names = {**DEFAULTS, **{rule.id: f"{RULE}{rule.id}" for rule in network.rules}}
    counters = [_counter(f"{DIGEST}{digest}", (0, 0))]
    counters += [_counter(f"{ADOPTING}{adopt_until}", (0, 0))] if adopt_until else []
    counters += [_counter(name, (counted or {}).get(key, (0, 0))) for key, name in names.items()]
    return "\n".join(
        [f"table {TABLE}", f"delete table {TABLE}", f"table {TABLE} {{", *counters, *body, "}", ""]
    )  # fmt: skip


def digest_of(text: str) -> str:
    """Return the name of the counter by which a table of this text is known."""
    return next(word for word in text.split() if word.startswith(DIGEST))


def rule_at(text: str, line: int) -> str:
    """Return the id of the rule that is in a line (the first is 1); empty: none is there."""
    lines = text.splitlines()
    head, _, end = lines[line - 1].rpartition(' comment "') if 0 < line <= len(lines) else ("", "", "")
    return end.rstrip('"') if head else ""


def _counter(name: str, value: tuple[int, int]) -> str:
    return f"counter {name} {{ packets {value[0]} bytes {value[1]}; }}"


def _chains(network: VxlanNetwork, adopt_until: int) -> list[str]:
    rules: dict[Direction, list[Rule]] = {"in": by_order(network.rules, "in"), "out": by_order(network.rules, "out")}
    now = flows.marks([*rules["in"], *rules["out"]])
    reverse = flows.adopted(now)
    accept, refuse = flows.mark(now.accepted), flows.mark(now.refused)
    adopt = [flows.adopting(f"{ADOPTING}{adopt_until}", adopt_until)] if adopt_until else []
    guests, host = f'iifname "{GUEST_SIDE}" oifname "{HOST_SIDE}"', f'iifname "{HOST_SIDE}" oifname "{GUEST_SIDE}"'
    return [
        *_chain("before", "type filter hook prerouting priority raw; policy accept;", services.sources(network)),
        *_chain("in", "", _rules(rules["in"], now, "original")),
        *_chain("out", "", _rules(rules["out"], now, "original")),
        *_chain("out_adopted", "", _rules(rules["out"], reverse, "reply")),
        *_chain(
            "adopted",
            "",
            [
                'ct direction original tcp flags & syn == syn counter name "invalid" drop',
                flows.passing(reverse),
                "jump out_adopted",
                f'counter name "default-out" {flows.mark(reverse.accepted)} accept',
            ],
        ),
        *_chain("to_guests", "", ["jump in", *adopt, f'counter name "default-in" {refuse} drop']),
        *_chain(
            "from_guests",
            "",
            [
                # RFC 3927, 7: not to be forwarded; the host's end of the cable has one of them.
                "ip daddr 169.254.0.0/16 drop",
                "jump out",
                f'counter name "default-out" {accept} accept',
            ],
        ),
        *_chain(
            "forward",
            "type filter hook forward priority filter; policy drop;",
            [
                f'iifname "{GUEST_SIDE}" oifname "{GUEST_SIDE}" accept',
                'ct state invalid counter name "invalid" drop',
                "tcp flags syn / syn,rst tcp option maxseg size set rt mtu",
                # Errors about a connection, such as `packet too big`: path MTU discovery needs them.
                "meta l4proto { icmp, ipv6-icmp } ct state related accept",
                flows.passing(now),
                f"{flows.is_adopted()} goto adopted",
                f"{guests} ct direction original goto from_guests",
                f"{host} ct direction reply goto from_guests",
                f"{host} ct direction original goto to_guests",
                f"{guests} ct direction reply goto to_guests",
            ],
        ),
        *_chain("input", "type filter hook input priority filter; policy drop;", services.accepted(network)),
    ]


def _chain(name: str, head: str, rules: Iterable[str]) -> list[str]:
    return [f"chain {name} {{", *([head] if head else []), *rules, "}"]


def _rules(rules: Sequence[Rule], now: flows.Marks, way: flows.Way) -> list[str]:
    lines: list[str] = []
    raw_before = False
    for rule in rules:
        if rule.raw and not raw_before:
            lines += flows.before_raw(now, way)
            raw_before = True
        lines += [f'{line} comment "{rule.id}"' for line in _lines(rule, now, way)]
    return lines


def _lines(rule: Rule, now: flows.Marks, way: flows.Way) -> list[str]:
    counter = f"{RULE}{rule.id}"
    if rule.raw:
        return [ours(rule.raw, counter, lambda accepted: flows.mark(now.accepted if accepted else now.refused))]
    match = _match(rule, way)
    count = f'counter name "{counter}"'
    if rule.action == "accept":
        return [f"{match} {count} {flows.mark(now.accepted)} accept".lstrip()]
    refuse = f"{count} {flows.mark(now.refused)}"
    if rule.action == "drop":
        return [f"{match} {refuse} drop".lstrip()]
    reset = f"{match} meta l4proto tcp {refuse} reject with tcp reset".lstrip()
    unreachable = f"{match} {refuse} reject with icmpx admin-prohibited".lstrip()
    return {"tcp": [reset], "any": [reset, unreachable]}.get(rule.protocol, [unreachable])


def _match(rule: Rule, way: flows.Way) -> str:
    which = family(rule)
    parts = [f"meta nfproto {'ipv6' if which == 'ip6' else 'ipv4'}"] if which else []
    for end, prefixes in (("saddr", rule.source), ("daddr", rule.destination)):
        merged: list[Any] = list(collapse_addresses([prefix(text) for text in prefixes]))  # type: ignore[type-var]
        # A set cannot hold the prefix of all addresses; the family says it already.
        if merged and merged[0].prefixlen:
            parts.append(f"ct {way} {which} {end} {{ {', '.join(str(one) for one in merged)} }}")
    if rule.protocol != "any":
        parts.append(f"meta l4proto {'ipv6-icmp' if rule.protocol == 'icmpv6' else rule.protocol}")
    for key, ports in (("proto-src", rule.source_ports), ("proto-dst", rule.ports)):
        if ports:
            parts.append(f"ct {way} {key} {{ {', '.join(_merged(ports))} }}")
    return " ".join(parts)


def _merged(ports: Sequence[str]) -> list[str]:
    """Return ranges of ports that do not overlap, as a set wants them."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(port_range(text) for text in ports):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return [str(first) if first == last else f"{first}-{last}" for first, last in result]
