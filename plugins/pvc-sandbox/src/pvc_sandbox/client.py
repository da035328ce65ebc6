"""The ``pvc`` command as scripts use it: a process of its own, JSON out."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from pvc_core.plugin.process import Completed, run
from pvc_sandbox.errors import SandboxError

_PROGRAM: Final = "from pvc_core.cli.main import main; main()"
_SEVERAL: Final = """\
import json, sys
from pvc_core.cli.main import main
common = sys.argv
for words in json.load(sys.stdin):
    sys.argv = [*common, *words]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
_DEADLINE_S: Final = 330.0
"""Longer than the longest time that a command waits by itself."""


class PvcCommand:
    """Runs ``pvc`` on one cluster."""

    def __init__(self, config: Path) -> None:
        self._config = str(config)

    def argv(self, *arguments: str) -> list[str]:
        """Return the argument list of a command, for whoever wants to start it himself."""
        return [sys.executable, "-c", _PROGRAM, "--config", self._config, *arguments]

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

    def several(self, commands: Sequence[Sequence[str]], deadline_s: float = _DEADLINE_S) -> None:
        """Run commands one after the other in one process, which is quicker, until one fails: raise SandboxError then."""
        argv = [sys.executable, "-c", _SEVERAL, "--config", self._config]
        done = run(argv, deadline_s=deadline_s, stdin=msgspec.json.encode(commands))
        if done.returncode:
            raise SandboxError(done.stderr.strip() or f"pvc: exit status {done.returncode}")

    def json(self, *arguments: str, deadline_s: float = _DEADLINE_S) -> Any:
        """Run a command that must succeed and return the JSON it printed."""
        return msgspec.json.decode(self("--format", "json", *arguments, deadline_s=deadline_s))

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """Return a listing, or nothing while the cluster cannot answer."""
        done = self.run("--format", "json", *arguments)
        if done.returncode:
            return []
        return msgspec.json.decode(done.stdout, type=list[dict[str, Any]])
