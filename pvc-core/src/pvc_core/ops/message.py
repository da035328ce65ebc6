"""What requests and responses have in common, and how a request is read from plain data."""

from typing import Any, TypeVar

import msgspec

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean

R = TypeVar("R")


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of an operation.  Unknown fields are refused: a misspelt option must not be ignored."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation answers.  Its JSON is the stable output of the CLI and the API."""


def decode_request(type_: type[R], data: Any, what: str = "request") -> R:
    """Return plain data (from YAML, JSON or keyword arguments) as a request.

    Raises InvalidRequest that names the field, what was expected, and the nearest known field.
    """
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError as error:
        text = str(error)
        hint = ""
        if "unknown field" in text and isinstance(data, dict):
            known = {field.encode_name for field in msgspec.structs.fields(type_)}  # type: ignore[arg-type]
            hint = next((did_you_mean(str(key), known) for key in data if key not in known), "")
        raise InvalidRequest(f"{what}: {text}{hint}") from error
