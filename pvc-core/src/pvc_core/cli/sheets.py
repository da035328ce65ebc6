"""Parts that several sheets have in common."""

from collections.abc import Sequence

from pvc_core.cli import words
from pvc_core.cli.output import Block, Cell, Column
from pvc_core.model.base import Condition


def conditions(values: Sequence[Condition]) -> Block:
    """Return the table of an object's conditions."""
    return Block(
        "Conditions",
        (
            Column("About", lambda c: c.type),
            Column("State", lambda c: Cell("ok", "good") if c.ok else Cell("not ok", "bad")),
            Column("Since", lambda c: words.when(c.since)),
            Column("Message", lambda c: c.message or c.reason, long=True),
        ),
        values,
    )
