"""Rules that an operator writes in the language of nft(8): kept inside their rule, and taught to be one of ours.

Pure: it runs where no nft is.  It keeps a text from leaving its rule or the firewall's order of things; whether the text makes
sense in the language is seen by the node, whose nft checks the whole table before anything changes.
"""

import re
from collections.abc import Callable
from typing import Final

from pvc_core.model.errors import InvalidRequest

LONGEST: Final = 1000
"""Characters of a raw rule."""
_TOKEN: Final = re.compile(r'"[^"]*"|[{}]|[^\s{}",]+|,')
_PLAIN: Final = re.compile(r"[ -~]*\Z")
_DECIDING: Final = ("accept", "drop", "reject")
_LAST: Final = (*_DECIDING, "return", "continue")
_STATEMENTS: Final = frozenset(
    {"table", "chain", "rule", "element", "ruleset", "flowtable", "hook", "policy", "include", "define", "redefine"}
    | {"undefine", "add", "insert", "delete", "destroy", "replace", "create", "rename", "list", "reset", "flush"}
    | {"monitor", "import", "export", "describe"}
)
"""Words that begin something else than a rule, or belong to it."""
_LEAVING: Final = {
    "jump": "chains are the firewall's own",
    "goto": "chains are the firewall's own",
    "vmap": "write one rule for each verdict, so that each is counted",
    "queue": "no program takes packets from a queue here",
    "comment": "the comment holds the rule's id; give the rule's own comment with --comment",
    "notrack": "open connections are known by their tracking",
}


def check_raw(told: str, text: str) -> None:
    """Raise InvalidRequest, which begins with ``told``, unless a text is one rule and nothing else."""
    if len(text) > LONGEST:
        raise InvalidRequest(f"{told}: the raw rule has {len(text)} characters; {LONGEST} are the most")
    if not _PLAIN.match(text):
        raise InvalidRequest(f"{told}: a raw rule is one line of printable ASCII characters")
    if text.count('"') % 2:
        raise InvalidRequest(f"{told}: a quotation mark has no other in raw rule `{text}`")
    unquoted = re.sub(r'"[^"]*"', '""', text)
    for character in ";#$\\":
        if character in unquoted:
            raise InvalidRequest(f"{told}: `{character}` must not be in a raw rule: it is one rule and nothing else")
    words = tokens(text)
    _check_braces(told, words)
    _check_words(told, words)


def tokens(text: str) -> list[str]:
    """Return the words, braces and commas of a rule; a quoted text is one word."""
    return _TOKEN.findall(text)


def _check_braces(told: str, words: list[str]) -> None:
    depth = 0
    for word in words:
        depth += (word == "{") - (word == "}")
        if depth < 0:
            break
        if depth > 1:
            raise InvalidRequest(f"{told}: braces stand only around one set in a raw rule, not one in another")
    if depth:
        raise InvalidRequest(f"{told}: the braces of the raw rule do not match each other")


def _check_words(told: str, words: list[str]) -> None:
    for before, word in zip(["", *words], words, strict=False):
        if word in _STATEMENTS and (before, word) != ("tcp", "reset"):
            raise InvalidRequest(f"{told}: `{word}` must not be in a raw rule: it is one rule and nothing else")
        if word in _LEAVING:
            raise InvalidRequest(f"{told}: `{word}` must not be in a raw rule: {_LEAVING[word]}")
    if "ct mark set" in " ".join(words):
        raise InvalidRequest(f"{told}: the mark of connections (`ct mark`) is the firewall's own")
    verdicts = [place for place, word in enumerate(words) if word in _LAST]
    if len(verdicts) > 1:
        raise InvalidRequest(f"{told}: a raw rule has one verdict, not {len(verdicts)}")
    if verdicts and words[verdicts[0]] != "reject" and verdicts[0] != len(words) - 1:
        raise InvalidRequest(f"{told}: the verdict `{words[verdicts[0]]}` must be the last word of a raw rule")


def ours(text: str, counter: str, mark: Callable[[bool], str]) -> str:
    """Return a raw rule that counts in ``counter``, and writes down its verdict (``mark(accepted)``) before it is given."""
    words = tokens(text)
    place = next((i for i, word in enumerate(words) if word in _LAST), len(words))
    verdict = words[place:]
    if verdict and verdict[0] in _DECIDING:
        verdict = [mark(verdict[0] == "accept"), *verdict]
    return " ".join([*words[:place], f'counter name "{counter}"', *verdict])
