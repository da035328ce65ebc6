"""Tables and sheets with colours, by rich.  Imported only when they are written to a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pvc_core.cli.output import STYLES, Block, Cell, Column, Line, Sheet, as_cell


def print_table(columns: Sequence[Column], rows: Sequence[Any]) -> None:
    """Print a listing."""
    _console().print(_table(columns, rows))


def print_sheet(sheet: Sheet) -> None:
    """Print one thing in detail: its lines, then its tables."""
    console = _console()
    lines = Table.grid(padding=(0, 2))
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
            console.print(_table(item.columns, item.rows, indent=2))


def _console() -> Console:
    # The caller decided that there shall be colours; highlight would colour every number.
    return Console(force_terminal=True, highlight=False)


def _table(columns: Sequence[Column], rows: Sequence[Any], *, indent: int = 0) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    if indent:
        table.add_column("", width=indent - 2, no_wrap=True)
    for column in columns:
        table.add_column(
            column.title.upper(),
            justify="right" if column.right else "left",
            overflow="fold",
            header_style="bright_black",
        )
    for row in rows:
        cells = [_text(as_cell(column.cell(row))) for column in columns]
        table.add_row(*([Text("")] if indent else []), *cells)
    return table


def _text(cell: Cell) -> Text:
    return Text(cell.text or "-", style=STYLES[cell.weight] if cell.text else STYLES["faint"])
