"""What a trace of hook calls may show: shapes and names, never what could be a secret.

An allow list: numbers, enumerations and short texts of fields whose name is harmless.  Of mappings only
the keys, of bytes and of XML only the size.
"""

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from pvc_core.plugin.config import Secret, sensitive

_TEXT_MAX: Final = 80
_ITEMS_MAX: Final = 5


def redacted(value: object, name: str = "") -> str:
    """Return a value for a trace; ``name`` is the argument's or field's."""
    if sensitive(name):
        return "***"
    match value:
        case None | bool() | int() | float():
            return str(value)
        case enum.Enum():
            return str(value.value)
        case str() if name.endswith("xml") or len(value) > _TEXT_MAX:
            return f"<{len(value)} characters>"
        case str():
            return repr(value)
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case Secret():
            return repr(value)
        case msgspec.Struct():
            fields = (f"{field}={redacted(getattr(value, field), field)}" for field in value.__struct_fields__)
            return f"{type(value).__name__}({', '.join(fields)})"
        case Mapping():
            return "{" + ", ".join(f"{key}: ..." for key in list(value)[:_ITEMS_MAX]) + "}"
        case list() | tuple() | set() | frozenset():
            more = f", {len(value) - _ITEMS_MAX} more" if len(value) > _ITEMS_MAX else ""
            return "[" + ", ".join(redacted(item, name) for item in list(value)[:_ITEMS_MAX]) + more + "]"
        case _:
            return f"<{type(value).__name__}>"


def redacted_arguments(arguments: Mapping[str, object]) -> str:
    """Return the arguments of a call for a trace."""
    return ", ".join(f"{name}={redacted(value, name)}" for name, value in arguments.items())
