"""How states and figures are written and coloured, the same everywhere."""

import datetime as dt
from collections.abc import Iterable
from typing import Final

from pvc_core.cli.output import Cell
from pvc_core.model.base import Condition
from pvc_core.model.units import format_bytes, format_mib

_WEIGHTS: Final = {
    "good": "recovered returned running ready active healthy done yes on alive",
    "busy": "starting stopping suspected fencing proven migrating creating resizing returning draining queued acquiring relinquishing",
    "warn": "waiting backoff drained maintenance degraded unknown cancelled deleting vacant",
    "bad": "failed lost no open",
    "faint": "stopped disabled off",
}
_OF_STATE: Final = {word: weight for weight, words in _WEIGHTS.items() for word in words.split()}


def state(word: str) -> Cell:
    """Return a state with its weight."""
    return Cell(word, _OF_STATE.get(word, ""))


def yes_no(value: bool) -> str:
    """Return a switch for people."""
    return "yes" if value else "no"


def name(text: str) -> Cell:
    """Return the name of what a row is about."""
    return Cell(text, "name")


def faint(text: str) -> Cell:
    """Return text of less importance."""
    return Cell(text, "faint")


def mib(value: int) -> str:
    """Return memory given in MiB for people; nothing for none."""
    return format_mib(value) if value else ""


def size(value: int) -> str:
    """Return a number of bytes for people; nothing for none."""
    return format_bytes(value) if value else ""


def words(items: Iterable[str], *, most: int = 0) -> str:
    """Return words with commas; with ``most``, the rest as a number."""
    known = list(items)
    if most and len(known) > most:
        return f"{', '.join(known[:most])} +{len(known) - most}"
    return ", ".join(known)


def count(number: int, thing: str) -> str:
    """Return a number of things: ``1 VM``, ``2 VMs``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def when(seconds: float) -> str:
    """Return an instant in local time; nothing for zero."""
    if not seconds:
        return ""
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def maintenance(until: float, *, on: bool) -> str:
    """Return a maintenance: ``off``, ``on``, or ``on until`` when it ends by itself."""
    return f"on until {when(until)}" if on and until else "on" if on else "off"


def ago(seconds: float, now: float) -> str:
    """Return how long ago an instant was, in its largest unit: ``12s``, ``5m``, ``3h``, ``8d``."""
    if not seconds:
        return ""
    age = max(0, int(now - seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if age >= 2 * length or (unit == "d" and age >= length):
            return f"{age // length}{unit}"
    return f"{age}s"


def condition(value: Condition) -> Cell:
    """Return what a condition says, bad when it is not ok."""
    text = value.message or value.reason or ("ok" if value.ok else "not ok")
    return Cell(text, "" if value.ok else "bad")
