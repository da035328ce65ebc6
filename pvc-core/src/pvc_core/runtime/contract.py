"""Does a value fit an annotation?  What plugins return is checked before core relies on it.

Exact, as a type checker would be: True is no int, a list is no tuple, and the fields of a struct are
looked into, because msgspec does not check what Python code puts there.
"""

import collections.abc
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec


def returns(function: Callable[..., object]) -> Any:
    """Return the annotation of what a function returns; None for one that returns nothing."""
    return typing.get_type_hints(function, include_extras=True).get("return")


def mismatch(value: object, wanted: Any) -> str | None:
    """Return what is wrong with a value, in a few words, or None when it fits the annotation."""
    origin = typing.get_origin(wanted)
    if origin is not None:
        return _mismatch_generic(value, wanted, origin, typing.get_args(wanted))
    if wanted is Any:
        return None
    if wanted is None or wanted is types.NoneType:
        return None if value is None else _is(value, "None")
    if not isinstance(wanted, type):
        return None
    if wanted in (int, float):
        fits = isinstance(value, (int, float) if wanted is float else int) and not isinstance(value, bool)
        return None if fits else _is(value, wanted.__name__)
    if not isinstance(value, wanted):
        return _is(value, wanted.__name__)
    return _mismatch_fields(value) if isinstance(value, msgspec.Struct) else None


def text_of(wanted: Any) -> str:
    """Return an annotation as it is written in the specification."""
    if wanted is None or wanted is types.NoneType:
        return "None"
    if isinstance(wanted, type) and typing.get_origin(wanted) is None:
        return wanted.__name__
    if (origin := typing.get_origin(wanted)) is typing.Annotated:
        return text_of(typing.get_args(wanted)[0])
    arguments = typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(text_of(a) for a in arguments)
    if origin is collections.abc.Callable:
        *_, result = arguments
        given = arguments[0] if isinstance(arguments[0], list) else arguments[:-1]
        return f"Callable[[{', '.join(text_of(a) for a in given)}], {text_of(result)}]"
    if isinstance(origin, type):
        return f"{origin.__name__}[{', '.join('...' if a is ... else text_of(a) for a in arguments)}]"
    return str(wanted).replace("typing.", "")


def _is(value: object, wanted: str) -> str:
    return f"{'None' if value is None else 'a value of type ' + type(value).__name__} instead of {wanted}"


def _mismatch_generic(value: object, wanted: Any, origin: Any, arguments: tuple[Any, ...]) -> str | None:
    if origin is typing.Annotated:
        return mismatch(value, arguments[0])
    if origin in (typing.Union, types.UnionType):
        fits = any(mismatch(value, argument) is None for argument in arguments)
        return None if fits else _is(value, text_of(wanted))
    if origin is typing.Literal:
        return None if value in arguments else f"{value!r} instead of one of {', '.join(map(repr, arguments))}"
    if origin is collections.abc.Callable:
        return None if callable(value) else _is(value, "a function")
    if not isinstance(origin, type) or not isinstance(value, origin):
        return _is(value, text_of(wanted))
    if isinstance(value, Mapping):
        return _mismatch_items(value, arguments)
    if isinstance(value, tuple) and not (len(arguments) == 2 and arguments[1] is ...):
        pairs = list(zip(value, arguments, strict=False)) if len(value) == len(arguments) else None
        if pairs is None:
            return f"a tuple of {len(value)} instead of {len(arguments)}"
    elif isinstance(value, collections.abc.Iterable):
        pairs = [(item, arguments[0]) for item in value]
    else:
        return None
    for index, (item, item_type) in enumerate(pairs):
        if (wrong := mismatch(item, item_type)) is not None:
            return f"in element {index}: {wrong}"
    return None


def _mismatch_items(value: Mapping[Any, Any], arguments: tuple[Any, ...]) -> str | None:
    for key, item in value.items():
        if (wrong := mismatch(key, arguments[0])) is not None:
            return f"in a key: {wrong}"
        if (wrong := mismatch(item, arguments[1])) is not None:
            return f"in the value of {key!r}: {wrong}"
    return None


@functools.cache
def _fields(struct: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(struct)
    return tuple((name, hints[name]) for name in struct.__struct_fields__)


def _mismatch_fields(value: msgspec.Struct) -> str | None:
    for name, wanted in _fields(type(value)):
        if (wrong := mismatch(getattr(value, name), wanted)) is not None:
            return f"in {type(value).__name__}.{name}: {wrong}"
    return None
