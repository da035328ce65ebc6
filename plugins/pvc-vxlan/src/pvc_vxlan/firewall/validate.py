"""Whether the rules of a network can be rules: pure, so that it is told where they are given, before anything changes."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, Literal

from pvc_core.model.errors import InvalidRequest
from pvc_vxlan.firewall.raw import check_raw
from pvc_vxlan.network import Rule

Family = Literal["", "ip", "ip6"]

MOST: Final = 1000
"""Rules of a network."""
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z")
_PORTS: Final = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?\Z")
_COMMENT: Final = re.compile(r"[^\x00-\x1f\x7f\"\u0085\u2028\u2029]{0,200}\Z")
_WITH_PORTS: Final = ("tcp", "udp", "sctp")
_FAMILY_OF: Final[dict[str, Family]] = {"icmp": "ip", "icmpv6": "ip6"}


def check_rules(network_name: str, rules: Sequence[Rule]) -> None:
    """Raise InvalidRequest, which names the network, the rule and what is wrong, unless all rules can be applied."""
    if len(rules) > MOST:
        raise InvalidRequest(f"network {network_name}: {len(rules)} rules are too many: {MOST} are the most")
    seen: set[str] = set()
    for rule in rules:
        if not _ID.match(rule.id):
            raise InvalidRequest(
                f"network {network_name}: {rule.id!r} is no id of a rule: up to 32 letters, digits, `-`, `_`, `.`, "
                "the first a letter or digit"
            )
        told = f"network {network_name}, rule {rule.id}"
        if rule.id in seen:
            raise InvalidRequest(f"{told}: there are two rules of this id; ids are unique in a network")
        seen.add(rule.id)
        _check(told, rule)


def family(rule: Rule) -> Family:
    """Return of which family a structured rule is; empty: of both.  Raises ValueError when it is of one and the other."""
    found: set[Family] = {"ip6" if ":" in prefix else "ip" for prefix in (*rule.source, *rule.destination)}
    if rule.protocol in _FAMILY_OF:
        found.add(_FAMILY_OF[rule.protocol])
    if len(found) > 1:
        raise ValueError
    return found.pop() if found else ""


def port_range(text: str) -> tuple[int, int]:
    """Return the first and the last port of ``22`` or ``8000-8100``.  Raises ValueError."""
    match = _PORTS.match(text)
    if match is None:
        raise ValueError
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        raise ValueError
    return first, last


def prefix(text: str) -> IPv4Network | IPv6Network:
    """Return a prefix, or an address as the longest one.  Raises ValueError."""
    if not text or "%" in text:
        raise ValueError
    return ip_network(text)


def _check(told: str, rule: Rule) -> None:
    if not 1 <= rule.order <= 9999:
        raise InvalidRequest(f"{told}: order {rule.order} is not between 1 and 9999")
    if not _COMMENT.match(rule.comment):
        raise InvalidRequest(f"{told}: a comment is one line of up to 200 characters without quotation marks")
    if rule.raw:
        _check_alone(told, rule)
        check_raw(told, rule.raw)
        return
    for given, texts in (("source", rule.source), ("destination", rule.destination)):
        for text in texts:
            _check_prefix(told, given, text)
    try:
        family(rule)
    except ValueError:
        raise InvalidRequest(
            f"{told}: it is about IPv4 and IPv6 at once ({', '.join((rule.protocol, *rule.source, *rule.destination))}); "
            "make a rule for each"
        ) from None
    ports = (*rule.source_ports, *rule.ports)
    if ports and rule.protocol not in _WITH_PORTS:
        raise InvalidRequest(f"{told}: protocol {rule.protocol} has no ports; {', '.join(_WITH_PORTS)} have")
    for text in ports:
        try:
            port_range(text)
        except ValueError:
            raise InvalidRequest(
                f"{told}: {text!r} is neither a port like 22 nor a range like 8000-8100, from 1 to 65535"
            ) from None


def _check_alone(told: str, rule: Rule) -> None:
    others = {
        "action": rule.action != "accept",
        "protocol": rule.protocol != "any",
        "source": rule.source,
        "destination": rule.destination,
        "source ports": rule.source_ports,
        "ports": rule.ports,
    }
    given = [name for name, there in others.items() if there]
    if given:
        raise InvalidRequest(f"{told}: a raw rule says all by itself, so it has no {' and no '.join(given)}")
    if not rule.raw.strip():
        raise InvalidRequest(f"{told}: the raw rule is empty")


def _check_prefix(told: str, given: str, text: str) -> None:
    try:
        prefix(text)
    except ValueError as error:
        nearest = ""
        if "has host bits set" in str(error):
            nearest = f"; did you mean {ip_network(text, strict=False)}?"
        raise InvalidRequest(
            f"{told}: {given} {text!r} is neither an address nor a prefix like 10.0.0.0/8 or 2001:db8::/32{nearest}"
        ) from None
