"""The ``pvc`` command as scripts use it: a process of its own, JSON out."""

import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from pvc_core.plugin.process import Completed, run
from pvc_sandbox.errors import SandboxError

_PROGRAM: Final = "from pvc_core.cli.main import main; main()"
_DEADLINE_S: Final = 330.0
"""Longer than the longest time that a command waits by itself."""


class PvcCommand:
    """Runs ``pvc`` on one cluster."""

    def __init__(self, config: Path) -> None:
        self._argv = (sys.executable, "-c", _PROGRAM, "--config", str(config))

    def argv(self, *arguments: str) -> list[str]:
        """Return the argument list of a command, for whoever wants to start it himself."""
        return [*self._argv, *arguments]

    def run(self, *arguments: str, deadline_s: float = _DEADLINE_S) -> Completed:
        """Run a command to its end; a non-zero status is not an error."""
        return run(self.argv(*arguments), deadline_s=deadline_s)

    def __call__(self, *arguments: str, deadline_s: float = _DEADLINE_S) -> str:
        """Run a command that must succeed and return what it printed; raise SandboxError with what it complained."""
        done = self.run(*arguments, deadline_s=deadline_s)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
            raise SandboxError(f"pvc {' '.join(arguments)}: {said}")
        return done.stdout

    def json(self, *arguments: str, deadline_s: float = _DEADLINE_S) -> Any:
        """Run a command that must succeed and return the JSON it printed."""
        return msgspec.json.decode(self("--format", "json", *arguments, deadline_s=deadline_s))

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """Return a listing, or nothing while the cluster cannot answer."""
        done = self.run("--format", "json", *arguments)
        if done.returncode:
            return []
        return msgspec.json.decode(done.stdout, type=list[dict[str, Any]])
