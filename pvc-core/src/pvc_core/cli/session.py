"""What one call of `pvc` works with: the options before the command, the cluster (opened when needed), the output."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import click

from pvc_core.cli.output import Colour, Format, Output
from pvc_core.model.errors import InvalidRequest

if TYPE_CHECKING:
    from pvc_core.client.local import Client
    from pvc_core.model.task import Task


class Connect(Protocol):
    """Opens the cluster named by a configuration file (None: the usual places)."""

    def __call__(self, config: str | None, /, *, timeout_s: float | None = None) -> "Client":
        """Return a client; ``timeout_s`` is for the state store to answer.  Raises PvcError."""


def _connect(config: str | None, *, timeout_s: float | None = None) -> "Client":
    from pvc_core.client.local import CONNECT_S, connect

    return connect(config, timeout_s=CONNECT_S if timeout_s is None else timeout_s)


class Session:
    """One call of `pvc`.  ``connect`` and ``interactive`` are given by tests."""

    def __init__(self, *, connect: Connect = _connect, interactive: bool | None = None) -> None:
        self.config: str | None = None
        self.out = Output()
        self.verbose = 0
        self.debug = False
        self._connect = connect
        self._interactive = interactive
        self._client: Client | None = None

    def configure(
        self, *, config: str | None, format_: Format, colour: Colour, quiet: bool, verbose: int, debug: bool
    ) -> None:
        """Take the options that stand before the command."""
        self.config = config
        self.out = Output(format_, colour, quiet=quiet)
        self.verbose = verbose
        self.debug = debug

    @property
    def client(self) -> "Client":
        """The cluster, connected at the first use."""
        if self._client is None:
            _set_up_logs(self.verbose + 2 * self.debug)
            self._client = self._connect(self.config)
        return self._client

    def quick_client(self, timeout_s: float) -> "Client":
        """Return the cluster for a look while somebody types: a short time-out, and no logs."""
        if self._client is None:
            _set_up_logs(0)
            self._client = self._connect(self.config, timeout_s=timeout_s)
        return self._client

    def close(self) -> None:
        """Let go of the cluster; may be called twice."""
        if self._client is not None:
            self._client.close()
            self._client = None

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked."""
        if self._interactive is not None:
            return self._interactive
        return sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something that cannot be undone; raise InvalidRequest where nobody can be asked."""
        if yes:
            return
        if not self.interactive:
            raise InvalidRequest(f"{question.rstrip('?')}: not done without confirmation; repeat it with --yes")
        click.confirm(question, abort=True, err=True)

    def follow(self, task: "Task", done: Callable[["Task"], str], *, wait: bool, timeout: float) -> None:
        """Wait for a task's end, with its progress, and say ``done(task)``; without ``wait`` say which task it is."""
        from pvc_core.cli.tasks import finish_task

        finish_task(self, task, done, wait=wait, timeout=timeout)


def session_of(ctx: click.Context) -> Session:
    """Return the session of a call; while words are completed no command has run, so one is made of the options."""
    root = ctx.find_root()
    if not isinstance(root.obj, Session):
        root.obj = Session()
        root.obj.config = root.params.get("config")
        root.call_on_close(root.obj.close)
    return root.obj


pass_session: Callable[..., Callable[..., None]] = click.make_pass_decorator(Session)


def _set_up_logs(level: int) -> None:
    """Send logs to standard error: warnings with -v, information with -vv, everything with --debug; else nothing."""
    import logging

    if level:
        logging.basicConfig(
            level={1: logging.WARNING, 2: logging.INFO}.get(level, logging.DEBUG),
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
            stream=sys.stderr,
        )
    else:
        # Libraries log what the command itself reports as one line.
        logging.getLogger().addHandler(logging.NullHandler())
