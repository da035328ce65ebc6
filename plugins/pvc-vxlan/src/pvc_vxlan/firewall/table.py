"""The table in a gateway's namespace: checked, replaced, read.  ``nft`` is given text, and read as JSON.

Text, because rules that operators wrote in nft's language belong in the same transaction as all others.
"""

import re
import time
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from pvc_core.plugin import Completed, DriverError, run
from pvc_netdev.namespace import entered
from pvc_netdev.nftables import has_table
from pvc_vxlan.firewall.flows import ADOPTION_S
from pvc_vxlan.firewall.render import ADOPTING, DEFAULTS, RULE, TABLE, digest_of, render, rule_at
from pvc_vxlan.network import VxlanNetwork

_DEADLINE_S: Final = 20.0
_ERROR: Final = re.compile(r"^[^\s:]+:(\d+):\d+(?:-\d+)?: Error: (.*)$", re.MULTILINE)
_KEYS: Final = {name: key for key, name in DEFAULTS.items()}


class RuleRefused(DriverError):
    """nft, or the kernel, does not take a rule: the table is as it was.  ``rule`` is its id; empty: it is none of the network's."""

    def __init__(self, message: str, rule: str) -> None:
        super().__init__(message, retryable=False)
        self.rule = rule


class _Counter(msgspec.Struct, frozen=True):
    name: str
    packets: int
    bytes: int


class _Listed(msgspec.Struct, frozen=True):
    nftables: list[dict[str, Any]]


def check(namespace: str, text: str) -> None:
    """Have nft and the kernel check a table in a namespace; nothing changes.  Raises RuleRefused."""
    _give(namespace, text, "--check")


def apply(namespace: str, text: str) -> None:
    """Replace the table in a namespace in one transaction.  Raises RuleRefused; the table is then as it was."""
    _give(namespace, text)


def ensure(namespace: str, network: VxlanNetwork) -> bool:
    """Make a network's table be that of its rules; return whether it was another.

    Where there was none, open connections are adopted for ``ADOPTION_S``.  Counters of rules that stay go on; what they count between their reading and the replacement (milliseconds) is lost.
    Raises RuleRefused; the table is then as it was.
    """
    there = _counters(namespace) if has_table(TABLE, namespace) else {}
    if digest(network) in there:
        return False
    until = _adopted_until(there) if there else int(time.time()) + ADOPTION_S
    apply(namespace, render(network, _counted(there), adopt_until=until))
    return True


def digest(network: VxlanNetwork) -> str:
    """Return the word by which a table of these rules is known."""
    return digest_of(render(network))


def counters(namespace: str) -> dict[str, tuple[int, int]]:
    """Return packets and bytes by rule's id, and by the keys of ``DEFAULTS``; nothing when there is no table.

    A rule counts the packets that it decided about: the first ones of a connection, and all that it drops.
    """
    return _counted(_counters(namespace))


def present(namespace: str) -> bool:
    """Return whether a table of ours is in a namespace."""
    return has_table(TABLE, namespace)


def without(network: VxlanNetwork, rule: str) -> VxlanNetwork:
    """Return a network without one of its rules."""
    return replace(network, rules=tuple(one for one in network.rules if one.id != rule))


def _adopted_until(there: dict[str, tuple[int, int]]) -> int:
    """Return until when a table adopts connections; 0: it does no more."""
    told = next((name.removeprefix(ADOPTING) for name in there if name.startswith(ADOPTING)), "0")
    return int(told) if int(told) > time.time() else 0


def _counted(there: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {
        _KEYS.get(name, name.removeprefix(RULE)): value
        for name, value in there.items()
        if name in _KEYS or name.startswith(RULE)
    }


def _counters(namespace: str) -> dict[str, tuple[int, int]]:
    # All of the family: unlike those of one table, to list them is no error where there is no table.
    listed = _nft(namespace, "-j", "list", "counters", "inet").check()
    try:
        objects = msgspec.json.decode(listed.stdout, type=_Listed).nftables
        found = [
            msgspec.convert(one["counter"], _Counter)
            for one in objects
            if "counter" in one and f"inet {one['counter'].get('table')}" == TABLE
        ]
    except msgspec.MsgspecError as error:
        raise DriverError(f"nft listed the counters of namespace {namespace} in a way not known: {error}") from error
    return {one.name: (one.packets, one.bytes) for one in found}


def _give(namespace: str, text: str, *options: str) -> None:
    done = _nft(namespace, *options, "-f", "-", stdin=text)
    if done.returncode == 0:
        return
    match = _ERROR.search(done.stderr)
    rule = rule_at(text, int(match[1])) if match else ""
    if match and rule:
        raise RuleRefused(f"rule {rule} is refused: nft says: {match[2]}: {_shown(text, int(match[1]))}", rule)
    said = " / ".join(done.stderr.strip().splitlines()[:3]) or f"status {done.returncode}"
    raise RuleRefused(f"the firewall of namespace {namespace} is refused by nft: {said}", "")


def _shown(text: str, line: int) -> str:
    return text.splitlines()[line - 1].rpartition(" comment ")[0]


def _nft(namespace: str, *arguments: str, stdin: str = "") -> Completed:
    # A child process is in the namespace that its parent's thread was in.
    with entered(namespace):
        return run(("nft", *arguments), deadline_s=_DEADLINE_S, stdin=stdin.encode())
