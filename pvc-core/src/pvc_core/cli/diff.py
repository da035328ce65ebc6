"""The difference between two definitions, for people."""

import difflib
from collections.abc import Sequence

import click

from pvc_core.cli.output import to_yaml
from pvc_core.ops.vm_change import FieldChange


def diff_lines(changes: Sequence[FieldChange]) -> list[str]:
    """Return the changed fields as YAML, line by line, with ``-``, ``+`` or a blank in front."""
    lines: list[str] = []
    for change in changes:
        old = to_yaml({change.field: change.old}).splitlines()
        new = to_yaml({change.field: change.new}).splitlines()
        _, _, _, *body = difflib.unified_diff(old, new, n=len(old), lineterm="")
        lines += [f"{line[0]} {line[1:]}" for line in body]
    return lines


def show_diff(changes: Sequence[FieldChange], *, coloured: bool) -> None:
    """Print the changed fields on standard error."""
    colours = {"+": "green", "-": "red"}
    for line in diff_lines(changes):
        click.secho(line, err=True, color=coloured, fg=colours.get(line[:1]))
