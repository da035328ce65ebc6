"""The pages are sound: their links lead somewhere, and the commands they show exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pvc_core.cli.lazy import Stub
from pvc_core.cli.main import build
from pvc_core.cli.plugins import installed_commands

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/README.md")])
ALL = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES]

ELSEWHERE = re.compile(r"[a-z]+:")
CODE = re.compile(r"^(?P<indent> *)```(\w*)\n(.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
PROSE_COMMAND = re.compile(r"`(pvc [^`]+)`")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as hosts of Markdown make them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL)
def test_links_lead_somewhere(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text())):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def commands(page: Path) -> Iterator[str]:
    """Yield the `pvc` command lines of a page: in code and, where they have arguments, in sentences."""
    text = page.read_text()
    for match in CODE.finditer(text):
        if match[2] in ("", "sh", "console"):
            for line in match[3].replace("\\\n", " ").splitlines():
                bare = line.strip().removeprefix("$ ")
                if re.match(r"pvc( [a-z-]|$)", bare):
                    yield re.split(r"\s#\s|\s>\s|\s\|\s|; ", bare)[0]
    rest = " ".join(CODE.sub("", text).split())
    for line in PROSE_COMMAND.findall(rest):
        yield line.replace("...", "").strip()


def check(line: str, root: click.Group) -> None:
    """Demand that every word of a command line is a command or an option there is."""
    words = shlex.split(line)[1:]
    command: click.Command = root
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        options = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
        if word.startswith("-") and word != "-":
            name, _, value = word.partition("=")
            if name in ("--help", "-h"):
                continue
            assert name in options, f"{line!r}: {command.name} has no option {name}"
            option = options[name]
            takes_value = isinstance(option, click.Option) and not option.is_flag and not option.count
            position += takes_value and not value
        elif isinstance(command, click.Group):
            found = command.commands.get(word)
            # In a sentence NODE, <node> and list|info stand for something else.
            if found is None and (word.isupper() or word.startswith("<") or "|" in word):
                return
            assert found is not None, f"{line!r}: {command.name} has no command {word}"
            command = found.load() if isinstance(found, Stub) else found


@pytest.mark.parametrize("page", ALL)
def test_commands_exist(page: Path):
    root = build(installed_commands(pytest.fail))
    for line in commands(page):
        check(line, root)


def test_commands_are_found_at_all():
    found = list(commands(ROOT / "README.md"))
    assert "pvc node flush hv2" in found
    assert len([line for page in PAGES for line in commands(page)]) > 100


@pytest.mark.parametrize("line", ["pvc vm lits", "pvc vm list --nope", "pvc frob", "pvc -c x.yml vm start web1 --hard"])
def test_a_wrong_command_is_noticed(line: str):
    with pytest.raises(AssertionError):
        check(line, build())
