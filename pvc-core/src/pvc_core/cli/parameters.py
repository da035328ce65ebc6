"""Drivers' own parameters of pools and networks, written as ``-p key=value``."""

from typing import Any

import click

Value = str | int | bool | list[str]


class Parameter(click.ParamType[tuple[str, Value | None]]):
    """``key=value``: true and false are switches, whole numbers are numbers, commas make a list, ``key=`` removes."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Value | None]:
        """Return the key and its value."""
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not key or not equals:
            self.fail(f"{value!r} is not of the form key=value", param, ctx)
        return key, parse_value(text)


def parse_value(text: str) -> Value | None:
    """Return the value that a text stands for; None for an empty one."""
    if text == "":
        return None
    if text in ("true", "false"):
        return text == "true"
    if text.isdecimal():
        return int(text)
    if "," in text:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


parameter_option = click.option(
    "-p",
    "--parameter",
    "parameters",
    type=Parameter(),
    multiple=True,
    metavar="KEY=VALUE",
    help="A parameter of the driver; may be repeated. Commas make a list.",
)


def as_text(value: Any) -> str:
    """Return a parameter's value as it is written after the equals sign."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, dict) for item in value):
            # Not written here at all, but by commands of their own.
            return f"({len(value)})"
        return ",".join(str(item) for item in value)
    return str(value)


def all_as_text(parameters: dict[str, Any]) -> str:
    """Return all parameters on one line."""
    return " ".join(f"{key}={as_text(value)}" for key, value in sorted(parameters.items()))
