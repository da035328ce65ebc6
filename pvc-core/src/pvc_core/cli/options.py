"""Options that many commands have in common."""

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from pvc_core.cli.output import FORMATS
from pvc_core.cli.session import session_of

Command = TypeVar("Command", bound=Callable[..., Any])

_DURATION: Final = re.compile(r"^(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?$")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}
_NO_LIMIT_S: Final = 366 * 86400.0
"""Time-out of a wait that shall have none."""


class Duration(click.ParamType[float]):
    """A duration: ``90``, ``90s``, ``5m``, ``2h``, ``1d``; in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        match = _DURATION.match(str(value).strip().lower())
        if match is None:
            self.fail(f"{value!r} is not a duration; write it like 90s, 5m or 2h", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


class Size(click.ParamType[int]):
    """A size as people write it (``10G``); in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the bytes."""
        from pvc_core.model.errors import InvalidRequest
        from pvc_core.model.units import parse_bytes

        try:
            return parse_bytes(value)
        except InvalidRequest as error:
            self.fail(str(error), param, ctx)


def _take_format(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None and not ctx.resilient_parsing:
        session_of(ctx).out.format = value  # type: ignore[assignment]  # click.Choice checked it


format_option: Final = click.option(
    "-f", "--format", type=click.Choice(FORMATS), expose_value=False, callback=_take_format, help="How it is printed."
)
"""``--format`` after the command, where hands expect it, as well as before."""

yes_option: Final = click.option("-y", "--yes", is_flag=True, help="Do not ask.")

force_space_option: Final = click.option(
    "--force", is_flag=True, help="Also when the pool would be promised beyond its limit."
)
"""``--force`` of what takes room in a pool."""

for_option: Final = click.option(
    "--for", "for_s", type=Duration(), metavar="TIME", help="It ends by itself after this time, such as 30m or 2h."
)
"""``--for TIME`` of what is switched on: argument ``for_s``, in seconds."""


def timeout_option(default_s: float | None) -> Callable[[Command], Command]:
    """Add ``--timeout``: argument ``timeout`` in seconds; with ``default_s`` None there is no limit unless one is given."""
    shown = "no limit" if default_s is None else f"{default_s:.0f}s"
    return click.option(
        "--timeout",
        type=Duration(),
        default=_NO_LIMIT_S if default_s is None else default_s,
        metavar="TIME",
        help=f"Wait no longer than this, such as 90s or 5m [{shown}].",
    )


def wait_options(default_s: float | None = 300.0) -> Callable[[Command], Command]:
    """Add ``--wait/--no-wait`` (argument ``wait``) and ``--timeout``."""

    def add(command: Command) -> Command:
        flag = click.option(
            "--wait/--no-wait", default=True, help="Wait until it is done (default), or return at once."
        )
        return flag(timeout_option(default_s)(command))

    return add
