"""A directory of fence agents whose behaviour a test sets, and the driver over it."""

import json
import logging
import stat
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from pvc_core.plugin import Context, FenceTarget, NodeInfo, run
from pvc_fence_agents.config import FenceAgentsConfig
from pvc_fence_agents.driver import AgentDriver

ACTIONS = ("on", "off", "reboot", "status", "monitor", "metadata")
PARAMETERS = (
    {"name": "action", "required": "1", "default": "reboot"},
    {"name": "ip", "required": "1", "obsoletes": "ipaddr"},
    {"name": "ipaddr", "required": "1"},
    {"name": "plug", "required": "1"},
    {"name": "password"},
    {"name": "community", "default": "private"},
    {"name": "pin", "shortdesc": "Secret number of the cabinet"},
    {"name": "key_file", "shortdesc": "Shared key file"},
    {"name": "ssl", "type": "boolean", "default": "1"},
    {"name": "insecure", "type": "boolean"},
    {"name": "ipport", "type": "integer", "default": "161"},
    {"name": "power_wait", "type": "second", "default": "0"},
    {"name": "version_used", "type": "select", "choices": ("1", "2c", "V3"), "default": "1"},
    {"name": "password_script"},
    {"name": "ssh_path", "default": "/usr/bin/ssh"},
    {"name": "verbose", "type": "boolean"},
)

# As the agents of ClusterLabs read their input: blanks off both ends, then one pair of quotes.
_SCRIPT = """#!/usr/bin/python3 -IS
import fcntl, json, os, re, sys, time
HERE = os.path.dirname(os.path.abspath(__file__))
NAME = os.path.basename(__file__)
BOOK = os.path.join(HERE, "book.json")

def book(change=None):
    with open(BOOK + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(BOOK) as file:
            data = json.load(file)
        if change is not None:
            change(data)
            with open(BOOK, "w") as file:
                json.dump(data, file)
        return data

def say(text):
    print(text, file=sys.stderr, flush=True)

def fail(text):
    say("2026-11-21 06:08:53,831 ERROR: " + text)
    say("")
    sys.exit(1)

given = {}
raw = "" if "metadata" in sys.argv else sys.stdin.read()
for line in raw.splitlines():
    name, _, value = line.strip().partition("=")
    given[name] = re.sub('^"(.*)"$', r"\\1", value)
action = given.get("action") or sys.argv[-1]
call = {"agent": NAME, "action": action, "argv": sys.argv[1:], "given": given, "env": dict(os.environ), "pid": os.getpid()}
plug = given.get("plug", "")
data = book(lambda data: data["calls"].append(call))

def power():
    return book()["power"][plug]

def switch(to):
    book(lambda data: data["power"].__setitem__(plug, to))

def status():
    state = power()
    print("Status: " + state.upper())
    sys.exit(2 if state == "off" else 0)

if action == "metadata":
    print(data["metadata"][NAME])
    sys.exit(0)
exec(data["behaviour"].get(NAME + ":" + action, ""))
if data["password"] and given.get("password") != data["password"]:
    fail("401 Unauthorized")
if action == "status":
    status()
switch(action)
print("Success: Powered " + action.upper())
"""


def metadata(name, parameters=PARAMETERS, actions=ACTIONS):
    """Return the XML of an agent."""
    lines = ['<?xml version="1.0" ?>', f"<resource-agent name={quoteattr(name)}>", "<parameters>"]
    for each in parameters:
        more = f"obsoletes={quoteattr(each['obsoletes'])}" if "obsoletes" in each else ""
        default = f"default={quoteattr(each['default'])}" if "default" in each else ""
        options = "".join(f"<option value={quoteattr(choice)} />" for choice in each.get("choices", ()))
        lines += [
            f'<parameter name={quoteattr(each["name"])} unique="0" required="{each.get("required", "0")}" {more}>',
            f"<content type={quoteattr(each.get('type', 'string'))} {default}>{options}</content>",
            f'<shortdesc lang="en">{each.get("shortdesc", "")}</shortdesc>',
            "</parameter>",
        ]
    lines += ["</parameters>", "<actions>", *(f"<action name={quoteattr(a)} />" for a in actions), "</actions>"]
    return "\n".join([*lines, "</resource-agent>"])


def driver_of(directory="/usr/sbin", **config) -> AgentDriver:
    info = NodeInfo(name="c1", role="coordinator")
    context = Context(node=info, log=logging.getLogger("pvc_fence_agents"), run=run, wake=lambda *_: None)
    return AgentDriver(context, FenceAgentsConfig(directory=str(directory), **config))


class Cabinet:
    """Two nodes, the agents that switch them, and a book in which the agents write what they were told."""

    def __init__(self, root: Path):
        self.root = root
        self.directory = root / "sbin"
        self.directory.mkdir()
        self._book = self.directory / "book.json"
        book = {"calls": [], "behaviour": {}, "metadata": {}, "password": "", "power": {"node1": "on", "node2": "on"}}
        self._book.write_text(json.dumps(book))
        self.add("fence_fake")

    def add(self, name: str, xml: str | None = None) -> None:
        path = self.directory / name
        path.write_text(_SCRIPT)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self._change(lambda book: book["metadata"].__setitem__(name, metadata(name) if xml is None else xml))

    def behave(self, **snippets: str) -> None:
        """Let the agent do something before, or instead of, an action: ``off="fail('no')"``."""
        self._change(lambda book: book["behaviour"].update({f"fence_fake:{a}": text for a, text in snippets.items()}))

    def require(self, password: str) -> None:
        self._change(lambda book: book.__setitem__("password", password))

    def switch(self, node: str, *, on: bool) -> None:
        self._change(lambda book: book["power"].__setitem__(node, "on" if on else "off"))

    def is_on(self, node: str) -> bool:
        return self.book()["power"][node] == "on"

    def calls(self) -> list[dict]:
        """Return what agents were told, without the questions for their metadata."""
        return [call for call in self.book()["calls"] if call["action"] != "metadata"]

    def actions(self) -> list[str]:
        return [call["action"] for call in self.calls()]

    def book(self) -> dict:
        return json.loads(self._book.read_text())

    def driver(self, **config) -> AgentDriver:
        return driver_of(self.directory, **config)

    def secret(self, value: str, name: str = "secret") -> str:
        path = self.root / name
        path.write_text(f"{value}\n")
        path.chmod(0o600)
        return str(path)

    def target(self, node: str = "node1", **parameters: str) -> FenceTarget:
        return FenceTarget(node=node, parameters={"agent": "fence_fake", "ip": "192.0.2.1", "plug": node, **parameters})

    def _change(self, change) -> None:
        book = self.book()
        change(book)
        new = self._book.with_suffix(".new")
        new.write_text(json.dumps(book))
        new.replace(self._book)


@pytest.fixture
def cabinet(tmp_path: Path) -> Cabinet:
    return Cabinet(tmp_path)


@pytest.fixture
def make_cabinet() -> type[Cabinet]:
    return Cabinet


@pytest.fixture
def agent_xml():
    """Return the maker of metadata."""
    return metadata


@pytest.fixture
def make_driver():
    """Return the maker of drivers over a directory."""
    return driver_of


@pytest.fixture
def make_secret(tmp_path: Path):
    """Return the maker of files with secrets."""

    def make(value: str) -> str:
        path = tmp_path / f"secret{len(list(tmp_path.glob('secret*')))}"
        path.write_text(value)
        path.chmod(0o600)
        return str(path)

    return make
