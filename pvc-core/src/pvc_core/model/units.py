"""Sizes as people write them, and back.  Memory is in MiB, storage in bytes, durations in seconds."""

import re
from typing import Final

from pvc_core.model.errors import InvalidRequest

_SIZE: Final = re.compile(r"^\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMGTP]?)(i?)(B?)\s*$", re.IGNORECASE | re.ASCII)
_WHOLE: Final = re.compile(r"\s*\d{1,18}\s*", re.ASCII)
_POWER: Final = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}

MIB: Final = 1024 * 1024


def parse_bytes(text: str | int, what: str = "size") -> int:
    """Return ``text`` ("10G", "512 MiB", 4096) in bytes; every prefix is a power of 1024.

    Raises InvalidRequest when it is not a size or not a whole number of bytes.
    """
    match = _SIZE.match(str(text))
    if match is None:
        raise InvalidRequest(f"{what} {text!r} is not a size; write a number with K, M, G or T, such as 10G")
    number = float(match[1]) * 1024 ** _POWER[match[2].upper()]
    if number != int(number):
        raise InvalidRequest(f"{what} {text!r} is not a whole number of bytes")
    return int(number)


def parse_mib(text: str | int, what: str = "memory") -> int:
    """Return a memory size in MiB; a bare number is MiB already.  Raises InvalidRequest."""
    if isinstance(text, int) or _WHOLE.fullmatch(text):
        return int(text)
    size = parse_bytes(text, what)
    if size % MIB:
        raise InvalidRequest(f"{what} {text!r} is not a whole number of MiB")
    return size // MIB


def format_bytes(size: int) -> str:
    """Return a size for people: the largest unit that keeps at least one whole digit, e.g. "1.5 GiB"."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def format_mib(mib: int) -> str:
    """Return a memory size given in MiB for people."""
    return format_bytes(mib * MIB)


def format_duration(seconds: float) -> str:
    """Return a duration for people: "850 ms", "12.3 s", "4 min 10 s", "3 h 2 min"."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
