"""Parameters of a fence device: decoded and checked without looking at any file or network."""

import ipaddress
import posixpath
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.fence import FenceDevice
from pvc_core.model.names import did_you_mean

PORT: Final = 623
CIPHER_SUITE: Final = 17
"""RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128: what current BMCs want; those before about 2015 have 3."""
_CIPHER_SUITES: Final = {2, 3, 7, 8, 16, 17}
"""With integrity (IPMI 2.0, table 22-20), as a forged answer would be taken for a proof; and known to ipmitool."""
_PRIVILEGES: Final = ("operator", "administrator")
_LESS: Final = ("callback", "user")
_KNOWN: Final = ("address", "port", "user", "password_file", "cipher_suite", "privilege")
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_ZONE: Final = re.compile(r"[A-Za-z0-9._-]+")
"""Of an IPv6 address: the name or the number of an interface."""
_FEW_DIGITS: Final = re.compile(r"[0-9]{1,9}")
_USER_BYTES: Final = 16
"""IPMI 2.0, section 22.28 (Set User Name)."""


class Device(NamedTuple):
    """A BMC and the account on it."""

    address: str
    """IPv4 or IPv6 address, or host name."""
    user: str
    password_file: str
    """Absolute path on the coordinators."""
    port: int = PORT
    cipher_suite: int = CIPHER_SUITE
    privilege: str = _PRIVILEGES[0]

    @property
    def place(self) -> str:
        """Where it is, for messages: the address, and the port when it is not the usual one."""
        if self.port == PORT:
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def device(parameters: Mapping[str, str]) -> Device:
    """Return a device's parameters; raise InvalidRequest that names the parameter and what it may be."""
    for name, value in parameters.items():
        if name not in _KNOWN:
            raise InvalidRequest(
                f"driver ipmi has no parameter {name!r}{did_you_mean(name, _KNOWN)}; it has {', '.join(_KNOWN)}"
            )
        if not isinstance(value, str):
            raise InvalidRequest(f"{name} {value!r} is not text; put it in quotes")
    return Device(
        address=_address(_needed(parameters, "address", "the BMC's address, such as 10.0.9.1")),
        port=_number(parameters, "port", PORT, range(1, 65536), "a UDP port from 1 to 65535"),
        user=_user(_needed(parameters, "user", "the name of an account of the BMC")),
        password_file=_path(_needed(parameters, "password_file", "a file with the password, on every coordinator")),
        cipher_suite=_number(
            parameters,
            "cipher_suite",
            CIPHER_SUITE,
            _CIPHER_SUITES,
            f"one of {', '.join(map(str, sorted(_CIPHER_SUITES)))}: those that protect answers from forgery",
        ),
        privilege=_privilege(parameters.get("privilege", _PRIVILEGES[0])),
    )


def validate_device(spec: FenceDevice) -> None:
    """Check a device's parameters; raises InvalidRequest."""
    device(spec.parameters)


def _needed(parameters: Mapping[str, str], name: str, what: str) -> str:
    if not parameters.get(name):
        raise InvalidRequest(f"driver ipmi needs the parameter {name!r}: {what}")
    return parameters[name]


def _address(text: str) -> str:
    address, percent, zone = text.partition("%")
    try:
        ipaddress.ip_address(address)
        if percent and not _ZONE.fullmatch(zone):
            raise ValueError(zone)
    except ValueError:
        labels = text.split(".")
        if len(text) > 253 or labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
            raise InvalidRequest(f"address {text!r} is neither an IP address nor a host name") from None
    return text


def _user(text: str) -> str:
    if len(text.encode()) > _USER_BYTES or not text.isascii() or not text.isprintable():
        raise InvalidRequest(f"user {text!r} is not 1 to {_USER_BYTES} printable ASCII characters, as IPMI has them")
    return text


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise InvalidRequest(f"password_file {text!r} is not an absolute path, such as /etc/pvc/bmc")
    if posixpath.normpath(text) != text:
        raise InvalidRequest(f"write password_file {text!r} as {posixpath.normpath(text)!r}")
    return text


def _number(parameters: Mapping[str, str], name: str, default: int, allowed: range | set[int], what: str) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not _FEW_DIGITS.fullmatch(text) or int(text) not in allowed:
        raise InvalidRequest(f"{name} {text!r} is not {what}")
    return int(text)


def _privilege(text: str) -> str:
    if text in _LESS:
        raise InvalidRequest(
            f"privilege {text!r} may look, but not switch the power: give {' or '.join(_PRIVILEGES)}, or leave it out"
        )
    if text not in _PRIVILEGES:
        raise InvalidRequest(
            f"privilege {text!r} is not one of {', '.join(_PRIVILEGES)}{did_you_mean(text, _PRIVILEGES)}"
        )
    return text
