"""The words of a command, ``power-cut n2 for 30``: each command's usage line is its grammar."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, NamedTuple

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean

_FOR: Final = "[for SECONDS]"


class Args(NamedTuple):
    """What a command is about; what its usage does not have is empty."""

    nodes: tuple[str, ...] = ()
    other: str = ""
    """The second node."""
    vms: tuple[str, ...] = ()
    device: str = ""
    word: str = ""
    seconds: float = 0.0
    for_s: float | None = None
    """It passes by itself after so many seconds; None: it stays."""


class Verb(NamedTuple):
    """A command.

    Its usage is its name, then ``NODE``, ``NODES`` (several with commas), ``OTHER``, ``VM``, ``DEVICE``, ``SECONDS`` or words
    to choose from (``up|down``); what is in brackets may be left out.
    """

    usage: str
    help: str
    call: Callable[[Any, Args], object]
    request: bool = False
    """It is a request of an operator, which may be refused."""

    @property
    def name(self) -> str:
        """The words it begins with."""
        return " ".join(word for word in self._words() if _is_name(word))

    def _words(self) -> list[str]:
        return self.usage.removesuffix(_FOR).split()

    def operands(self) -> list[str]:
        """Return what follows the name."""
        return [word for word in self._words() if not _is_name(word)]

    @property
    def may_pass(self) -> bool:
        """It takes ``for SECONDS``."""
        return self.usage.endswith(_FOR)


class Names(NamedTuple):
    """The names that a file gives."""

    nodes: Collection[str]
    vms: Mapping[str, tuple[str, ...]]
    """Names of VMs, and of groups of them -> the VMs."""


class Do(NamedTuple):
    """A command that was understood."""

    verb: Verb
    args: Args


def _is_name(word: str) -> bool:
    return word.islower() and "|" not in word and "[" not in word


def understand(text: str, verbs: Mapping[str, Verb], names: Names) -> Do:
    """Return a command's text as what is to be done.  Raises InvalidRequest."""
    words = text.split()
    name = next((n for n in (" ".join(words[:2]), " ".join(words[:1])) if n in verbs), None)
    if name is None:
        given = " ".join(words[: 2 if words[:1] == ["operator"] else 1])
        raise InvalidRequest(f"no command {given!r}{did_you_mean(given, verbs) or '; known: ' + ', '.join(verbs)}")
    verb = verbs[name]
    words = words[len(name.split()) :]
    args = Args()
    if "for" in words:
        at = words.index("for")
        if not verb.may_pass or len(words) != at + 2:
            raise _misused(verb, text)
        args = args._replace(for_s=_number(words[at + 1], least=0.0))
        words = words[:at]
    for operand in verb.operands():
        if words:
            args = _take(args, operand.strip("[]"), words.pop(0), names)
        elif not operand.startswith("["):
            raise _misused(verb, text)
    if words:
        raise _misused(verb, text)
    return Do(verb, args)


def _take(args: Args, operand: str, word: str, names: Names) -> Args:
    match operand:
        case "NODE":
            return args._replace(nodes=(known(word, names.nodes, "node"),))
        case "NODES":
            return args._replace(nodes=tuple(known(name, names.nodes, "node") for name in word.split(",")))
        case "OTHER":
            return args._replace(other=known(word, names.nodes, "node"))
        case "VM":
            return args._replace(vms=names.vms[known(word, names.vms, "VM")])
        case "DEVICE":
            return args._replace(device=word)
        case "SECONDS":
            return args._replace(seconds=_number(word, least=None))
    return args._replace(word=known(word, operand.split("|"), "word"))


def known(word: str, words: Collection[str], what: str) -> str:
    """Return a word that must be one of some; raise InvalidRequest with the nearest one."""
    if word not in words:
        listed = f"; known: {', '.join(words)}" if len(words) <= 12 else ""
        raise InvalidRequest(f"no {what} {word!r} here{did_you_mean(word, words) or listed}")
    return word


def _number(word: str, *, least: float | None) -> float:
    try:
        number = float(word)
    except ValueError:
        raise InvalidRequest(f"expected a number of seconds, found {word!r}") from None
    if not abs(number) < 1e9 or (least is not None and number < least):
        raise InvalidRequest(f"{word} is out of range for a number of seconds")
    return number


def _misused(verb: Verb, text: str) -> InvalidRequest:
    return InvalidRequest(f"write {verb.usage!r}, found {text!r}")
