"""The overview of all commands, made from the tree itself: ``python -m pvc_core.cli.reference > docs/cli.md``."""

import sys
import textwrap
from collections.abc import Iterator

import click

from pvc_core.cli.lazy import Stub
from pvc_core.cli.main import build

_HEAD = """\
# Commands

<!-- Made by `python -m pvc_core.cli.reference`: change the commands, not this file. -->

All commands of core, with their options. `pvc COMMAND --help` says the same in the terminal. Plugins add commands of
their own, such as `pvc sandbox`. What `--format json` prints is in [cli-json.md](cli-json.md).

Exit status: 0 done; 1 not done; 2 the request was wrong in itself; 130 interrupted. A command that waits may be
interrupted with Ctrl-C: the job goes on. Commands that destroy something ask first; `--yes` answers, and without a
terminal it is needed.
"""


def render() -> str:
    """Return the whole page."""
    root = build()
    context = click.Context(root, info_name="pvc", **root.context_settings)
    lines = [_HEAD, "## `pvc` itself", "", *_options(root, context), ""]
    for name in root.list_commands(context):
        lines += _command(root.commands[name], name, context, depth=2)
    return "\n".join(lines).rstrip("\n") + "\n"


def _command(command: click.Command, name: str, parent: click.Context, depth: int) -> Iterator[str]:
    if isinstance(command, Stub):
        command = command.load()
    context = click.Context(command, info_name=name, parent=parent)
    if isinstance(command, click.Group):
        yield from (f"{'#' * depth} `{context.command_path}`", "", command.help or "", "")
        for inner in command.list_commands(context):
            yield from _command(command.commands[inner], inner, context, depth + 1)
        return
    # click prints the help of a command as a terminal shows it; of its layout only the paragraphs are kept.
    yield f"{'#' * depth} `{' '.join([context.command_path, *command.collect_usage_pieces(context)])}`"
    yield ""
    for paragraph in (command.help or "").split("\n\n"):
        if paragraph.lstrip(" ").startswith("\b"):
            example = textwrap.dedent("\n".join(paragraph.splitlines()[1:])).rstrip()
            yield from ("```", *example.splitlines(), "```", "")
        else:
            yield from (" ".join(paragraph.split()), "")
    yield from (*_options(command, context), "")


def _options(command: click.Command, context: click.Context) -> list[str]:
    records = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    rows = [[part.replace("|", r"\|") for part in record] for record in records if record is not None]
    lines = [f"| `{names}` | {' '.join(text.split())} |" for names, text in rows]
    return ["| Option | |", "|---|---|", *lines] if lines else []


if __name__ == "__main__":
    sys.stdout.write(render())
