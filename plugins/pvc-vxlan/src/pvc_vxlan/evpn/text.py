"""FRR's configuration as a tree of lines, and how ours and the operator's parts of it are told apart and put together.

Ours is what was rendered the last time, and what bears our names; everything else is the operator's, also inside the
same ``router bgp``. Where both say something that can be said only once, such as ``bgp router-id``, the operator's word
stays.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from pvc_core.plugin import DriverError

Path = tuple[str, ...]
"""A line with the lines of the sections that it is in, the outermost first."""

_OURS: Final = "pvc-(?:fabric|upstream[46]|clients|imports[46])(?: |$)"
"""Names of ours (``render``), not all that begin with pvc-: the operator may have such ones too."""
_OUR_NAMES: Final = re.compile(
    rf"(?:no )?(?:(?:ip|ipv6) prefix-list {_OURS}|route-map {_OURS}|neighbor {_OURS}|neighbor \S+ peer-group {_OURS}"
    rf"|bgp listen range \S+ peer-group {_OURS}|neighbor \S+ route-map {_OURS}|redistribute \S+ route-map {_OURS})"
)
_MEMBER: Final = re.compile(rf"neighbor (\S+) peer-group {_OURS}")
_IDENTITY: Final = re.compile(r"neighbor (\S+) (?:remote-as|password|description) ")
_NEIGHBOR: Final = re.compile(r"(?:no )?neighbor (\S+) ")
_REMOTE_AS: Final = re.compile(r"neighbor (\S+) remote-as (\S+)$")
_ROUTER: Final = re.compile(r"router bgp (\d+)$")
_ONCE: Final = re.compile(
    r"bgp router-id|bgp graceful-restart(?=$|-disable$)|bgp listen limit|bgp route-map delay-timer|redistribute kernel"
)
_NOISE: Final = frozenset({"Building configuration...", "Current configuration:", "end"})


class Section(Struct):
    """What is in one line's section."""

    lines: "Tree"
    close: str = ""
    """The line that ends it."""


Tree = dict[str, Section]
"""Line -> what is below it, in order."""


def parse(text: str) -> Tree:
    """Return the lines of ``show running-config``, or of a file that was made from it; indentation makes sections."""
    root: Tree = {}
    open_: list[tuple[int, Tree, str]] = [(-1, root, "")]
    """Depth, the tree that lines of more depth go to, the line that opened it."""
    for raw in text.splitlines():
        line = " ".join(raw.split())
        if not line or line[0] in "!#" or line in _NOISE:
            continue
        depth = len(raw) - len(raw.lstrip(" "))
        if line.startswith("exit"):
            _close(open_, depth, line)
            continue
        while open_[-1][0] >= depth:
            open_.pop()
        here = open_[-1][1]
        section = here.setdefault(line, Section({}))
        open_.append((depth, section.lines, line))
    return root


def _close(open_: list[tuple[int, Tree, str]], depth: int, line: str) -> None:
    while open_[-1][0] > depth:
        open_.pop()
    at, _, opener = open_[-1]
    if at == depth:
        open_.pop()
        open_[-1][1][opener].close = line


def dump(tree: Tree, depth: int = 0) -> list[str]:
    """Return the lines of a tree, indented; within a section plain lines stand before sections."""
    lines = []
    for line in sorted(tree, key=lambda line: bool(tree[line].lines or tree[line].close)):
        section = tree[line]
        lines.append(" " * depth + line)
        lines += dump(section.lines, depth + 1)
        if section.close:
            lines.append(" " * depth + section.close)
    return lines


def paths(tree: Tree, above: Path = ()) -> Iterator[Path]:
    """Yield every line with the sections it is in."""
    for line, section in tree.items():
        yield (*above, line)
        yield from paths(section.lines, (*above, line))


def split(running: Tree, remembered: Iterable[Path]) -> tuple[Tree, list[Path]]:
    """Return the operator's part of a configuration, and the lines of ours that are in it.

    ``remembered`` is what was rendered before. A section of ours with lines of the operator's stays as theirs, and so
    do lines that they added to a neighbor of ours.
    """
    members = {match[1] for path in paths(running) if (match := _MEMBER.match(path[-1]))}
    ours: list[Path] = []
    return _operators(running, (), set(remembered), members, ours), ours


def _operators(tree: Tree, above: Path, mine: set[Path], members: set[str], ours: list[Path]) -> Tree:
    kept: Tree = {}
    for line, section in tree.items():
        path = (*above, line)
        identity = _IDENTITY.match(line)
        if _OUR_NAMES.match(line) or (identity and identity[1] in members):
            ours += [path, *paths(section.lines, path)]
            continue
        below = _operators(section.lines, path, mine, members, ours)
        if path in mine:
            ours.append(path)
            if not below:
                continue
        kept[line] = Section(below, section.close)
    return kept


def says_no_ipv4_default(operators: Tree) -> bool:
    """Return whether the operator's part has ``no bgp default ipv4-unicast``."""
    return any(path[-1] == "no bgp default ipv4-unicast" and len(path) == 2 for path in paths(operators))


def merge(operators: Tree, ours: Tree, left: Iterable[Path]) -> Tree:
    """Return the operator's part with ours in it.

    ``left`` are lines of ours that were in FRR: what the operator added to a neighbor of ours goes with the neighbor.
    Raises DriverError when the two contradict each other.
    """
    _check(operators, ours)
    named = {match[1] for path in paths(ours) if (match := _NEIGHBOR.match(path[-1]))}
    gone = {match[1] for path in left if (match := _MEMBER.match(path[-1]))} - named
    return _merged(operators, ours, gone)


def _merged(operators: Tree, ours: Tree, gone: set[str]) -> Tree:
    result: Tree = {}
    for line, section in operators.items():
        neighbor = _NEIGHBOR.match(line)
        if not neighbor or neighbor[1] not in gone:
            result[line] = Section(_merged(section.lines, {}, gone), section.close)
    said = {_once(line) for line in operators}
    for line, section in ours.items():
        if line in result:
            there = result[line]
            result[line] = Section(_merged(there.lines, section.lines, gone), there.close or section.close)
        elif not _once(line) or _once(line) not in said:
            result[line] = Section(_merged({}, section.lines, gone), section.close)
    return result


def _once(line: str) -> str:
    found = _ONCE.match(line)
    return found[0] if found else ""


def _check(operators: Tree, ours: Tree) -> None:
    for line in ours:
        if not (wanted := _ROUTER.match(line)):
            continue
        for other in operators:
            if (found := _ROUTER.match(other)) and found[1] != wanted[1]:
                raise DriverError(
                    f"FRR of this node has the operator's 'router bgp {found[1]}', but the cluster's AS is "
                    f"{wanted[1]}, and FRR has one AS outside VRFs: set the cluster's asn to {found[1]}, or move that "
                    "one to a VRF",
                    retryable=False,
                )
        own = operators.get(line, Section({})).lines
        theirs = {match[1]: match[2] for text in own if (match := _REMOTE_AS.match(text))}
        for text in ours[line].lines:
            if (m := _REMOTE_AS.match(text)) and theirs.get(m[1], m[2]) != m[2]:
                raise DriverError(
                    f"FRR of this node has the operator's 'neighbor {m[1]} remote-as {theirs[m[1]]}', but the "
                    f"cluster's configuration names it with AS {m[2]}: correct one of them",
                    retryable=False,
                )
