"""Options that many commands have in common."""

from typing import Any, Final

import click

from pvc_core.cli.output import FORMATS
from pvc_core.cli.session import session_of
from pvc_core.plugin.cli import Duration, timeout_option, wait_options, yes_option

__all__ = [
    "Duration",
    "Size",
    "for_option",
    "force_space_option",
    "format_option",
    "timeout_option",
    "wait_options",
    "yes_option",
]


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

force_space_option: Final = click.option(
    "--force", is_flag=True, help="Also when the pool would be promised beyond its limit."
)
"""``--force`` of what takes room in a pool."""

for_option: Final = click.option(
    "--for", "for_s", type=Duration(), metavar="TIME", help="It ends by itself after this time, such as 30m or 2h."
)
"""``--for TIME`` of what is switched on: argument ``for_s``, in seconds."""
