"""The moving line on a terminal while something is waited for, by rich."""

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from pvc_core.ops.wait import Progress as Seen


class LiveDisplay:
    """A spinner, what is waited for, what it does now, a bar once the fraction is known, the time so far."""

    def __init__(self, what: str) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True)),
            TextColumn(
                "{task.fields[text]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"), markup=False
            ),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
            expand=True,
        )
        self._has_bar = False
        self._task = self._progress.add_task(what, total=None, text="")
        self._progress.start()

    def show(self, seen: Seen) -> None:
        """Show what is seen now in place of the last."""
        if seen.fraction is not None and not self._has_bar:
            *others, elapsed = self._progress.columns
            self._progress.columns = (*others, BarColumn(bar_width=24), elapsed)
            self._has_bar = True
        total, completed = (None, 0.0) if seen.fraction is None else (1.0, seen.fraction)
        self._progress.update(self._task, text=seen.message, total=total, completed=completed)

    def close(self) -> None:
        """Remove the line."""
        self._progress.stop()
