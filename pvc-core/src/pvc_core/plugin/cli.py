"""What the CLI commands of a plugin work with.

A command is an ordinary click command.  It gets the cluster and the output by ``pass_client`` and
``pass_output``, so that ``--config``, ``--format`` and ``--quiet`` mean the same for it as for core's own::

    @click.command()
    @click.argument("network")
    @pass_output
    @pass_client
    def peers(client: Client, out: Output, network: str) -> None:
        out.data(client.call("network.get", name=network))

The module may import click, this module, and what else it needs but the plugin's driver: commands run
on an operator's machine, where neither the backend's libraries nor libvirt are.  A PvcError that leaves
a command is printed as one line, and its ``exit_status`` is the command's.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Final, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import click

from pvc_core.model.task import Task

P = ParamSpec("P")
R = TypeVar("R")
Command = TypeVar("Command", bound=Callable[..., Any])

_DURATION: Final = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?$")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_NO_LIMIT_S: Final = 366 * 86400.0
"""Time-out of a wait that shall have none."""


class Column(NamedTuple):
    """A column of a listing: ``cell`` makes the text of a row."""

    title: str
    cell: Callable[[Any], str]
    right: bool = False
    """Align to the right: figures."""


class Output(Protocol):
    """Prints in the format the person asked for.  Results go to standard output, all else to standard error."""

    format: Literal["table", "json", "yaml"]
    """What the person asked for; ``table`` is the default."""

    def listing(self, rows: Sequence[Any], columns: Sequence[Column], *, empty: str) -> None:
        """Print many things: a table of ``columns``, or an array of the whole rows; ``empty`` when there are none."""

    def data(self, value: Any) -> None:
        """Print one value: structs, mappings, lists, text, numbers; as JSON unless YAML is asked for."""

    def done(self, message: str, **fields: Any) -> None:
        """Print the result of a change: a sentence, or an object with ``message`` and ``fields``."""

    def text(self, text: str) -> None:
        """Print text that is itself the result, whatever the format."""

    def note(self, text: str) -> None:
        """Tell the person something that is not a result."""

    def warn(self, text: str) -> None:
        """Tell the person something that they should not miss."""


class Client(Protocol):
    """The cluster.  Connected at its first use, so a command that never uses it works without one."""

    def call(self, operation: str, /, **arguments: Any) -> Any:
        """Run an operation of core by its name, such as ``network.get``; return its response.

        Raises PvcError: InvalidRequest for arguments that are wrong, NotFound, Conflict, Unavailable, ...
        """

    def ask(self, query: str, /, node: str = "", **arguments: Any) -> Any:
        """Ask the plugin on a node (empty: on any live one that has it) for what its hook ``queries`` answers.

        Raises PvcError: NotFound, Unavailable, and what the plugin says.
        """


class Session(Protocol):
    """One call of ``pvc``: the object that the CLI has put into click's outermost context."""

    @property
    def client(self) -> Client: ...

    @property
    def out(self) -> Output: ...

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask before something that cannot be undone; ``yes``: it has been confirmed by ``--yes``."""

    def follow(self, task: Task, done: Callable[[Task], str], *, wait: bool, timeout: float) -> None:
        """Show the progress of a task that was made until its end, then say ``done(task)``.

        Without ``wait`` only say which task it is.  ``timeout`` is in seconds; the task goes on after it.  Raises PvcError
        when the task failed or was cancelled, when the time is up, and after Ctrl-C.
        """


def session() -> Session:
    """Return the session of the command that is running."""
    return cast("Session", click.get_current_context().find_root().obj)


def pass_client(command: Callable[Concatenate[Client, P], R]) -> Callable[P, R]:
    """Give a command the cluster as its first argument."""

    @functools.wraps(command)
    def with_client(*args: P.args, **kwargs: P.kwargs) -> R:
        return command(session().client, *args, **kwargs)

    return with_client


def pass_output(command: Callable[Concatenate[Output, P], R]) -> Callable[P, R]:
    """Give a command the output as its first argument."""

    @functools.wraps(command)
    def with_output(*args: P.args, **kwargs: P.kwargs) -> R:
        return command(session().out, *args, **kwargs)

    return with_output


def _take_format(
    ctx: click.Context, _parameter: click.Parameter, value: Literal["table", "json", "yaml"] | None
) -> None:
    if value is not None and not ctx.resilient_parsing:
        session().out.format = value


format_option: Final = click.option(
    "-f",
    "--format",
    type=click.Choice(["table", "json", "yaml"]),
    expose_value=False,
    callback=_take_format,
    help="How it is printed.",
)
"""``--format`` after a plugin's command, where hands expect it, as well as before."""

yes_option: Final = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


class Duration(click.ParamType[float]):
    """A duration: ``90``, ``90s``, ``5m``, ``2h``, ``1d``; in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        match = _DURATION.match(str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is not a duration; write it like 90s, 5m or 2h", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


def timeout_option(default_s: float | None) -> Callable[[Command], Command]:
    """Add ``--timeout``: argument ``timeout`` in seconds; with ``default_s`` None there is no limit unless one is given."""
    shown = "no limit" if default_s is None else f"{default_s:.0f}s"
    return click.option(
        "--timeout",
        type=Duration(),
        default=_NO_LIMIT_S if default_s is None else default_s,
        metavar="TIME",
        help=f"Wait no longer than this, such as 90s or 5m [{shown}].",
    )


def wait_options(default_s: float | None = 300.0) -> Callable[[Command], Command]:
    """Add ``--wait/--no-wait`` (argument ``wait``) and ``--timeout``."""

    def add(command: Command) -> Command:
        flag = click.option(
            "--wait/--no-wait", default=True, help="Wait until it is done (default), or return at once."
        )
        return flag(timeout_option(default_s)(command))

    return add
