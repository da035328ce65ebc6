"""Why ipmitool failed: from what it writes to its standard error with ``-v``.

Without ``-v`` a wrong password, a cipher suite that the BMC lacks and a BMC that is not there all read "Unable to
establish IPMI v2 / RMCP+ session".  The words are those of ipmitool 1.8.18 and 1.8.19.
"""

import re
from typing import Final, NamedTuple

from pvc_core.plugin import AuthFailed, Completed, DriverError, NotReady
from pvc_fence_ipmi.parameters import Device

_LINES: Final = 2
_LENGTH: Final = 200


class Unreachable(NotReady):
    """Asking again at once is of no use: it cannot be got at, or hangs."""


class Silent(Unreachable):
    """Not one request was answered."""


class Unusable(DriverError):
    """It cannot be used as it, or we, are set up."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)


class _Reason(NamedTuple):
    said: re.Pattern[str]
    kind: type[DriverError]
    means: str
    """Completes "BMC ... "; may use the fields of a Device, and {said}, the pattern's group."""


def _reason(said: str, kind: type[DriverError], means: str) -> _Reason:
    return _Reason(re.compile(said), kind, means)


_ROLE: Final = (
    "does not let user {user} have the privilege {privilege}: raise the user's limit on the BMC's LAN channel, "
    "or the limit of cipher suite {cipher_suite} there"
)
_REASONS: Final = (
    _reason(
        r"Get Chassis Power Status failed: Insufficient privilege level",
        AuthFailed,
        "does not let user {user} even read the power with the privilege {privilege}: the account needs operator, on "
        "some BMCs administrator",
    ),
    _reason(
        r"Chassis Power .* failed: Insufficient privilege level",
        AuthFailed,
        "lets user {user} look, but not switch the power, with the privilege {privilege}: the account needs operator, "
        "on some BMCs administrator",
    ),
    _reason(r"Chassis Power .* failed: (?P<said>.+)", DriverError, "refuses the command: {said}"),
    _reason(
        r"RAKP 2 HMAC is invalid|RAKP 4 message has invalid integrity check value|invalid integrity check value",
        AuthFailed,
        "refuses the password of user {user}: it is not the one in {password_file}",
    ),
    _reason(
        r"unauthorized name|invalid name length",
        AuthFailed,
        "has no user {user}, or it is disabled or may not log in over LAN",
    ),
    _reason(r"unauthorized role|invalid role|Set Session Privilege Level to \w+ failed: ", AuthFailed, _ROLE),
    _reason(
        r"(invalid|no matching) (authentication|integrity|confidentiality) (algorithm|payload)"
        r"|no matching cipher suite|Unsupported cipher suite",
        Unusable,
        "refuses cipher suite {cipher_suite}: try cipher_suite={other_suite}, or enable the suite on the BMC",
    ),
    _reason(r"does not support IPMI v2", Unusable, "does not speak IPMI 2.0"),
    _reason(
        r"insufficient resources for (session|role)",
        NotReady,
        "has no session left for us; on some BMCs this means that cipher suite {cipher_suite} is disabled",
    ),
    _reason(r"Address lookup for .* failed", Unreachable, "cannot be reached: its name has no address here"),
    _reason(r"Get Auth Capabilities error|Error issuing Get Channel Auth", Silent, "does not answer"),
    _reason(r"Could not open socket", Unreachable, "cannot be reached from this node: there is no route to it"),
    _reason(
        r"Set Session Privilege Level to \w+ failed",
        NotReady,
        "fell silent after the login; if it always does, try cipher_suite={other_suite}",
    ),
    _reason(
        r"Unable to [gs]et Chassis Power|no response from RAKP", NotReady, "fell silent in the middle of a session"
    ),
    _reason(
        r"Unable to establish",
        NotReady,
        "answers, but opens no session; if it never does, try cipher_suite={other_suite}",
    ),
)


def failure(bmc: Device, done: Completed, password: str) -> DriverError:
    """Return what a failed call means for a BMC: AuthFailed, NotReady or another DriverError."""
    fields = {**bmc._asdict(), "other_suite": 3 if bmc.cipher_suite == 17 else 17}
    for reason in _REASONS:
        found = reason.said.search(done.stderr)
        if found:
            said = found.groupdict().get("said", "")
            return reason.kind(f"BMC {bmc.place} {reason.means.format(**fields, said=shown(said, password))}")
    lines = [line for line in (done.stderr.strip() or done.stdout.strip()).splitlines() if line.strip()]
    told = shown(" / ".join(lines[-_LINES:]), password) or "it said nothing"
    return DriverError(f"BMC {bmc.place}: ipmitool ended with status {done.returncode}: {told}")


def shown(text: str, password: str) -> str:
    """Return what a program said, for a message: one short line, printable, and without the password."""
    if password:
        text = text.replace(password, "***")
    plain = "".join(letter if letter.isprintable() else "?" for letter in text.strip())
    return plain if len(plain) <= _LENGTH else f"{plain[: _LENGTH - 3]}..."
