"""Names of objects, and did-you-mean."""

import difflib
import re
from collections.abc import Iterable
from typing import Final

from pvc_core.model.errors import InvalidRequest, NotFound

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_MAC: Final = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


def check_name(name: str, what: str) -> str:
    """Return ``name``; raise InvalidRequest unless it is 1-63 letters, digits, dots, dashes, underscores.

    It must begin and end with a letter or digit, which also keeps it usable as a ZooKeeper path
    component, a file name and (without underscores) a host name.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{what} {name!r} is not a valid name: use 1 to 63 letters, digits, '.', '-' or '_', "
            "beginning and ending with a letter or digit"
        )
    return name


def check_mac(mac: str) -> str:
    """Return a MAC address in lower case with colons; raise InvalidRequest when it is none or is multicast."""
    text = mac.lower().replace("-", ":")
    if not _MAC.fullmatch(text):
        raise InvalidRequest(f"{mac!r} is not a MAC address; write it like 52:54:00:12:34:56")
    if int(text[:2], 16) & 1:
        raise InvalidRequest(f"MAC address {mac!r} is a multicast address, which no NIC may have")
    return text


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def not_found(what: str, name: str, known: Iterable[str] = ()) -> NotFound:
    """Return the error for a name that no object has."""
    return NotFound(f"no {what} named {name!r}{did_you_mean(name, known)}")
