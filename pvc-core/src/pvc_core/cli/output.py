"""What commands print: tables and sheets for people, JSON and YAML for scripts.

Results go to standard output.  Notes, warnings and progress go to standard error, so that a pipe gets
results only.  On a terminal tables have colours and keep to its width; in a pipe they are plain aligned
text that nothing truncates.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

import click
import msgspec

Format = Literal["table", "json", "yaml"]
Colour = Literal["auto", "always", "never"]
FORMATS: Final = ("table", "json", "yaml")


class Cell(NamedTuple):
    """Text with a weight: good, busy, warn, bad, faint, name, or none."""

    text: str
    weight: str = ""


class Column(NamedTuple):
    """A column of a listing: ``cell`` makes the text of a row."""

    title: str
    cell: Callable[[Any], Cell | str]
    right: bool = False
    long: bool = False
    """Sentences: on a narrow terminal they are cut (in a list) or go over several lines (in a sheet)."""
    extra: bool = False
    """Left out of a list on a terminal that is too narrow for it."""


class AnyColumn(Protocol):
    """A column of core's or of a plugin's, which has no ``long`` and no ``extra``."""

    @property
    def title(self) -> str:
        """What stands above it."""

    @property
    def cell(self) -> Callable[[Any], Cell | str]:
        """What makes the text of a row."""

    @property
    def right(self) -> bool:
        """Align to the right."""


class Line(NamedTuple):
    """A line of a sheet: a label and what it is."""

    label: str
    value: Cell | str


class Block(NamedTuple):
    """A table within a sheet."""

    title: str
    columns: Sequence[AnyColumn]
    rows: Sequence[Any]


Sheet = Sequence[Line | Block]


_PLAIN: Final = (str, int, float, bool)


def plain(value: Any) -> Any:
    """Return a value as JSON would have it, every field of every struct present, defaults too."""
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [plain(item) for item in items]
    return msgspec.to_builtins(value)


def _made(factory: Any) -> Any:
    """Return what a field's default factory makes; ``msgspec.NODEFAULT`` when it has none."""
    return factory() if callable(factory) else factory


def written(value: Any) -> Any:
    """Return a value as a person would write it: fields at their default are left out."""
    if isinstance(value, msgspec.Struct):
        return {
            field.encode_name: written(getattr(value, field.name))
            for field in msgspec.structs.fields(value)
            if field.required or getattr(value, field.name) not in (field.default, _made(field.default_factory))
        }
    if isinstance(value, dict):
        return {str(key): written(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [written(item) for item in value]
    return msgspec.to_builtins(value)


class Output:
    """Prints in one format.  ``colour`` is about tables; ``quiet`` mutes notes, never results or errors."""

    def __init__(self, format: Format = "table", colour: Colour = "auto", *, quiet: bool = False) -> None:
        self.format = format
        self.colour = colour
        self.quiet = quiet

    def listing(self, rows: Sequence[Any], columns: Sequence[AnyColumn], *, empty: str) -> None:
        """Print many things: a table, or an array of objects with all their fields."""
        if self.format != "table":
            self.data(rows)
        elif not rows:
            self.note(empty)
        elif self.coloured(sys.stdout):
            from pvc_core.cli.terminal import print_table

            print_table(columns, rows)
        else:
            click.echo("\n".join(table_lines(columns, rows)))

    def record(self, value: Any, sheet: Sheet) -> None:
        """Print one thing: a sheet, or an object with all its fields."""
        if self.format != "table":
            self.data(value)
        elif self.coloured(sys.stdout):
            from pvc_core.cli.terminal import print_sheet

            print_sheet(sheet)
        else:
            click.echo("\n".join(_sheet_lines(sheet)))

    def data(self, value: Any) -> None:
        """Print a value as JSON or YAML (JSON when the format is neither)."""
        builtins = plain(value)
        if self.format == "yaml":
            click.echo(to_yaml(builtins), nl=False)
        else:
            click.echo(msgspec.json.format(msgspec.json.encode(builtins), indent=2))

    def done(self, message: str, **fields: Any) -> None:
        """Print the result of a change: a sentence, or an object with ``message`` and ``fields``."""
        if self.format != "table":
            self.data({"message": message, **fields})
        elif not self.quiet:
            click.echo(message)

    def text(self, text: str) -> None:
        """Print text that is itself the result, whatever the format."""
        click.echo(text)

    def note(self, text: str) -> None:
        """Tell the person something that is not a result."""
        if not self.quiet:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Tell the person something that they should not miss, also when quiet."""
        click.echo(f"pvc: warning: {text}", err=True)

    def coloured(self, stream: Any) -> bool:
        """Say whether colours may be written to this stream."""
        if self.colour != "auto":
            return self.colour == "always"
        return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def to_yaml(builtins: Any) -> str:
    """Return builtins as a YAML document in the order they have; text of several lines is written as such."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Own class, so that nobody else's YAML changes."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    dumped: str = yaml.dump(builtins, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return dumped


def as_cell(value: Cell | str) -> Cell:
    """Return text as a cell without weight."""
    return value if isinstance(value, Cell) else Cell(value)


def table_lines(columns: Sequence[AnyColumn], rows: Sequence[Any]) -> list[str]:
    """Return a table as aligned text, two spaces between columns; an empty cell is a dash."""
    texts = [[column.title.upper() for column in columns]]
    texts += [[as_cell(column.cell(row)).text or "-" for column in columns] for row in rows]
    widths = [max(len(row[index]) for row in texts) for index in range(len(columns))]
    return [
        "  ".join(
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in texts
    ]


def _sheet_lines(sheet: Sheet) -> list[str]:
    width = max((len(item.label) for item in sheet if isinstance(item, Line)), default=0)
    lines: list[str] = []
    for item in sheet:
        if isinstance(item, Line):
            lines.append(f"{item.label:<{width}}  {as_cell(item.value).text or '-'}")
        elif item.rows:
            lines += ["", f"{item.title}:", *(f"  {line}" for line in table_lines(item.columns, item.rows))]
    return lines
