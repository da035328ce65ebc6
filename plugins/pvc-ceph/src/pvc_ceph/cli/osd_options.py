"""Options of commands that make OSDs."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pvc_ceph.cli.osd_ask import number
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.units import MIB, parse_bytes

Command = TypeVar("Command", bound=Callable[..., Any])


def db_options(command: Command) -> Command:
    """Add ``--db``, ``--db-size`` and ``--db-ratio``; see ``db_arguments``."""
    for add in reversed(
        (
            click.option(
                "--db",
                metavar="GROUP|DEVICE",
                help="Where its metadata goes: a volume group of create-db-vg (left out: the one with most room), or, with "
                "osd_layout raw, an empty device.",
            ),
            click.option("--db-size", metavar="SIZE", help="Size of its metadata volume, such as 60G."),
            click.option("--db-ratio", metavar="PERCENT", help="The same in percent of the OSD's size, such as 2%."),
        )
    ):
        command = add(command)
    return command


def db_arguments(db: str | None, db_size: str | None, db_ratio: str | None) -> dict[str, Any]:
    """Return the arguments of a task for them; raises InvalidRequest."""
    if db_size and db_ratio:
        raise InvalidRequest("give --db-size or --db-ratio, not both")
    arguments: dict[str, Any] = {}
    if db:
        arguments["db"] = db
    if db_size:
        arguments["db_bytes"] = parse_bytes(db_size, "--db-size")
        if arguments["db_bytes"] < MIB:
            raise InvalidRequest(f"--db-size {db_size} is less than 1 MiB; to have no metadata volume, leave it out")
    if db_ratio:
        arguments["db_percent"] = number(_percent(db_ratio))
    return arguments


def _percent(text: str) -> float:
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0.0 < percent <= 50.0:
        raise InvalidRequest(f"--db-ratio {text!r} is no percentage of 0.1 to 50, such as 2%")
    return percent
