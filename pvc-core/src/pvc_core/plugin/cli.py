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
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, Final, Literal, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import click

P = ParamSpec("P")
R = TypeVar("R")


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
