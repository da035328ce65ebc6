"""Commands that are only text until they are called, so that `pvc --help` imports none of them.

Click asks for every command object to print a group's help, to complete words and to suggest the word
that was meant.  So each command is there from the start, as a ``Stub`` that holds its help line, and
only ``resolve_command``, which is called for the one command that runs, puts the real one in its place.
"""

import importlib
from collections.abc import Iterable

import click

from pvc_core.cli.table import Entry
from pvc_core.model.errors import PvcError


class PluginCommandBroken(PvcError):
    """A command of a plugin cannot be loaded."""


class Stub(click.Command):
    """Stands for the command at ``target`` (``package.module:attribute``); ``plugin`` says whose it is."""

    def __init__(self, name: str, help: str, target: str, *, plugin: str = "") -> None:
        super().__init__(name, help=help, short_help=help)
        self.target = target
        self.plugin = plugin

    def load(self) -> click.Command:
        """Import and return the command; raise PluginCommandBroken when it is a plugin's and cannot be used."""
        if not self.plugin:
            return self._import()
        try:
            return self._import()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may do anything at import, also call sys.exit()
            raise PluginCommandBroken(
                f"the command {self.name!r} of plugin {self.plugin!r} cannot be used here: "
                f"{type(error).__name__}: {_first_line(error)}; run: pvc plugin doctor {self.plugin}"
            ) from error

    def _import(self) -> click.Command:
        module, _, attribute = self.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.target} is not a click command but a {type(command).__name__}")
        return command


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no reason given"])[0]


class LazyGroup(click.Group):
    """A group whose stubs are replaced by the real commands when one is called."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return what click found, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, Stub):
            command = command.load()
        return name, command, rest


def fill(group: click.Group, entries: Iterable[Entry]) -> None:
    """Put the entries of a table into a group, groups within it included."""
    for entry in entries:
        if entry.commands:
            inner = LazyGroup(entry.name, help=entry.help, short_help=entry.help)
            fill(inner, entry.commands)
            group.add_command(inner)
        else:
            group.add_command(Stub(entry.name, entry.help, entry.target))
