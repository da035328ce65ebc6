"""Tables and sheets with colours, by rich.  Imported only when they are written to a terminal."""

from collections.abc import Sequence
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pvc_core.cli.output import STYLES, AnyColumn, Block, Cell, Line, Sheet, as_cell

_GAP: Final = 2
_LEAST: Final = 24
"""Width below which a column of sentences is of no use: other columns are left out before."""


class _Filled:
    """A column with its cells."""

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
    console = _console()
    filled = [_Filled(column, rows) for column in columns]
    while _needed(filled) > console.width and any(column.extra for column in filled):
        filled.remove([column for column in filled if column.extra][-1])
    for column in filled:
        if column.long:
            width = max(column.least, console.width - _needed(filled) + column.least)
            column.cells = [_cut(cell, width) for cell in column.cells]
            column.width = min(column.width, width)
    # What is still too wide is wrapped by the terminal, character by character, and loses nothing.
    console.width = max(console.width, sum(column.width + _GAP for column in filled))
    console.print(_table(filled))


def print_sheet(sheet: Sheet) -> None:
    """Print one thing in detail: its lines, then its tables."""
    console = _console()
    lines = Table.grid(padding=(0, _GAP))
    lines.add_column(style="bright_black", no_wrap=True)
    lines.add_column(overflow="fold")
    for item in sheet:
        if isinstance(item, Line):
            lines.add_row(item.label, _text(as_cell(item.value)))
    console.print(lines)
    for item in sheet:
        if isinstance(item, Block) and item.rows:
            console.print()
            console.print(Text(item.title, style="bold"))
            console.print(_table([_Filled(column, item.rows) for column in item.columns], indent=True))


def _console() -> Console:
    # The caller decided that there shall be colours; highlight would colour every number.
    return Console(force_terminal=True, highlight=False)


def _needed(columns: Sequence[_Filled]) -> int:
    return sum(column.least + _GAP for column in columns) - _GAP


def _cut(cell: Cell, width: int) -> Cell:
    if cell_len(cell.text) <= width:
        return cell
    return cell._replace(text=set_cell_size(cell.text, width - 1).rstrip() + "…")


def _table(columns: Sequence[_Filled], *, indent: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    if indent:
        table.add_column("", width=0, no_wrap=True)
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.long,
            overflow="fold",
            header_style="bright_black",
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*([""] if indent else []), *map(_text, cells))
    return table


def _text(cell: Cell) -> Text:
    return Text(cell.text or "-", style=STYLES[cell.weight] if cell.text else STYLES["faint"])
