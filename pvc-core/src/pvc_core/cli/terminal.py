"""Tables and sheets with colours, as wide as the terminal.

Not by rich's tables: they take a millisecond for each row, and clusters have thousands of VMs.
"""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

import click
from rich.cells import cell_len, set_cell_size

from pvc_core.cli.output import AnyColumn, Block, Cell, Line, Sheet, as_cell

_STYLES: Final[dict[str, dict[str, Any]]] = {
    "good": {"fg": "green"},
    "busy": {"fg": "cyan"},
    "warn": {"fg": "yellow"},
    "bad": {"fg": "red", "bold": True},
    "faint": {"fg": "bright_black"},
    "name": {"bold": True},
    "": {},
}
"""What each weight of a cell looks like."""
_GAP: Final = 2
_LEAST: Final = 24
"""Width that a column of sentences should have: other columns are left out before it gets less."""
_SHORTEST: Final = 12
"""Width that it has at least, when no other can be left out."""


class _Filled:
    """A column with its cells, and the width it gets."""

    def __init__(self, column: AnyColumn, rows: Sequence[Any]) -> None:
        self.title = column.title.upper()
        self.right = column.right
        self.long = getattr(column, "long", False)
        self.extra = getattr(column, "extra", False)
        self.cells = [as_cell(column.cell(row)) for row in rows]
        self.width = max(cell_len(self.title), *(cell_len(cell.text) for cell in self.cells))

    @property
    def least(self) -> int:
        return min(self.width, _LEAST) if self.long else self.width


def print_table(columns: Sequence[AnyColumn], rows: Sequence[Any]) -> None:
    """Print a listing, one line for each row if the terminal is wide enough for it."""
    room = _terminal_width()
    filled = [_Filled(column, rows) for column in columns]
    while _needed(filled) > room and any(column.extra for column in filled):
        filled.remove([column for column in filled if column.extra][-1])
    _fit(filled, room)
    for column in filled:
        column.cells = [_cut(cell, column.width) for cell in column.cells]
    _print(_lines(filled))


def print_sheet(sheet: Sheet) -> None:
    """Print one thing in detail: its lines, then its tables."""
    room = _terminal_width()
    lines = [item for item in sheet if isinstance(item, Line)]
    labels = max((len(line.label) for line in lines), default=0)
    _print(text for line in lines for text in _line(line, labels, room))
    for item in sheet:
        if isinstance(item, Block) and item.rows:
            filled = [_Filled(column, item.rows) for column in item.columns]
            _fit(filled, room - _GAP)
            _print(["", click.style(item.title, bold=True), *(f"{'':{_GAP}}{line}" for line in _lines(filled))])


def _print(lines: Sequence[str] | Iterator[str]) -> None:
    # The caller decided that there shall be colours, so click must not take them out.
    click.echo("\n".join(lines), color=True)


def _terminal_width() -> int:
    return shutil.get_terminal_size((80, 24)).columns


def _needed(columns: Sequence[_Filled]) -> int:
    return sum(column.least + _GAP for column in columns) - _GAP


def _fit(columns: Sequence[_Filled], room: int) -> None:
    """Give the columns of sentences what the others leave.

    What is still too wide is wrapped by the terminal and loses nothing.
    """
    long = [column for column in columns if column.long]
    left = room - _needed(columns)
    for index, column in enumerate(long):
        width = max(_SHORTEST, min(column.width, column.least + left // (len(long) - index)))
        left -= width - column.least
        column.width = width


def _lines(columns: Sequence[_Filled]) -> Iterator[str]:
    yield _join((column, Cell(column.title, "faint")) for column in columns)
    for cells in zip(*(column.cells for column in columns), strict=True):
        if all(cell_len(cell.text) <= column.width for column, cell in zip(columns, cells, strict=True)):
            yield _join(zip(columns, (cell if cell.text else Cell("-", "faint") for cell in cells), strict=True))
        else:
            yield from _folded(columns, cells)


def _folded(columns: Sequence[_Filled], cells: Sequence[Cell]) -> Iterator[str]:
    """Return a row that goes over several lines."""
    parts = [
        textwrap.wrap(cell.text, column.width) or ["-"] if column.long else [cell.text or "-"]
        for column, cell in zip(columns, cells, strict=True)
    ]
    for index in range(max(map(len, parts))):
        texts = (part[index] if index < len(part) else "" for part in parts)
        row = (cell._replace(text=text) for cell, text in zip(cells, texts, strict=True))
        yield _join(zip(columns, row, strict=True))


def _join(row: Iterator[tuple[_Filled, Cell]]) -> str:
    line = ""
    for column, cell in row:
        blank = " " * (column.width - cell_len(cell.text))
        text = click.style(cell.text, **_STYLES[cell.weight]) if cell.weight and cell.text else cell.text
        line += f"{blank}{text}" if column.right else f"{text}{blank}"
        line += " " * _GAP
    return line.rstrip()


def _line(line: Line, labels: int, room: int) -> Iterator[str]:
    cell = as_cell(line.value) if as_cell(line.value).text else Cell("-", "faint")
    indent = labels + _GAP
    parts = textwrap.wrap(cell.text, max(room - indent, _LEAST), break_on_hyphens=False) or [cell.text]
    for index, part in enumerate(parts):
        label = line.label if index == 0 else ""
        yield click.style(f"{label:<{indent}}", **_STYLES["faint"]) + click.style(part, **_STYLES[cell.weight])


def _cut(cell: Cell, width: int) -> Cell:
    if cell_len(cell.text) <= width:
        return cell
    return cell._replace(text=set_cell_size(cell.text, width - 1).rstrip() + "…")
