"""The fence agents of this node: finding them, reading their metadata, and telling which of them prove anything."""

import os
import threading
from pathlib import Path
from typing import Final, NamedTuple

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean
from pvc_core.plugin import NotReady, Run
from pvc_fence_agents.metadata import TRUE, Agent, parse

_METADATA_S: Final = 5.0
_NEEDED: Final = ("status", "off", "on")
_HALF_READ: Final = "it calls a server off when only half of the controller's answer has come"
_NO_PROOF: Final = {
    "fence_amt": "it calls a machine off that sleeps, and may wake with all its guests",
    "fence_cisco_ucs": "it calls a blade off that is missing, or is not the one of its profile",
    "fence_crosslink": "it takes a node that does not answer a ping for dead",
    "fence_dummy": "it switches nothing: it writes a file",
    "fence_evacuate": "it reads what OpenStack believes of a node, and switches nothing",
    "fence_ilo3_ssh": _HALF_READ,
    "fence_ilo4_ssh": _HALF_READ,
    "fence_ilo5_ssh": _HALF_READ,
    "fence_ilo_mp": _HALF_READ,
    "fence_ilo_ssh": _HALF_READ,
    "fence_rhevm": "it calls a machine off whose state the manager does not tell",
    "fence_sbd": "it asks the node to end itself, and reads back its own request",
    "fence_virsh": "it calls a domain off whenever it does not understand virsh's answer",
}


class _Version(NamedTuple):
    """What changes when an agent is replaced."""

    inode: int
    size: int
    mtime_ns: int


class Agents:
    """The agents in a directory.  Thread-safe; an agent is asked for its metadata again when its file has changed."""

    def __init__(self, directory: str, believed: tuple[str, ...], run: Run) -> None:
        self._directory: Final = Path(directory)
        self._believed: Final = believed
        self._run: Final = run
        self._lock: Final = threading.Lock()
        self._known: Final[dict[str, tuple[_Version, Agent]]] = {}

    def names(self) -> list[str]:
        """Return the names of all agents; none when the directory is not there."""
        return sorted(path.name for path in self._directory.glob("fence_*") if os.access(path, os.X_OK))

    def path(self, name: str) -> str:
        """Return the program of an agent."""
        return str(self._directory / name)

    def get(self, name: str) -> Agent:
        """Return an agent whose word can be taken.

        Raises NotReady when it is not installed, DriverError when its metadata cannot be read, InvalidRequest
        when it proves nothing.
        """
        path = self._directory / name
        try:
            found = path.stat()
        except OSError as error:
            raise NotReady(
                f"this node has no agent {path} ({error.strerror}){did_you_mean(name, self.names())} "
                "(agents are in Debian's package fence-agents)"
            ) from None
        version = _Version(found.st_ino, found.st_size, found.st_mtime_ns)
        with self._lock:
            known = self._known.get(name)
        if known is not None and known[0] == version:
            return known[1]
        agent = self._ask(name)
        with self._lock:
            self._known[name] = (version, agent)
        return agent

    def _ask(self, name: str) -> Agent:
        done = self._run([self.path(name), "-o", "metadata"], deadline_s=_METADATA_S)
        agent = parse(name, done.stdout)
        lacking = [action for action in _NEEDED if action not in agent.actions]
        if lacking:
            raise InvalidRequest(f"{name} cannot be used: it has no action {lacking[0]!r}")
        if name not in self._believed and (reason := no_proof(agent)):
            raise InvalidRequest(
                f"{name} cannot be used, because its 'off' proves nothing: {reason}; if it does here, name it in "
                "'believed' of this plugin's section in pvcnoded.yml on every coordinator"
            )
        return agent


def no_proof(agent: Agent) -> str:
    """Return why an agent's "off" does not prove that a node runs nothing; empty: it does."""
    if agent.name in _NO_PROOF:
        return _NO_PROOF[agent.name]
    # fencing.py leaves the action out for agents that shut a port of a switch or a disk instead.
    if "reboot" not in agent.actions:
        return "it cuts a node off from storage or network, and the node runs on"
    missing = agent.parameters.get("missing_as_off")
    if missing is not None and missing.default.lower() in TRUE:
        return "it calls a machine off that it does not find"
    return ""
