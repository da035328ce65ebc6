"""Configuration sections: strict decoding into msgspec structs, and secrets by file reference.

All configuration is decoded here, core's own too, so that every mistake is told in the same words and all
of them at once: msgspec alone stops at the first.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

import msgspec
from msgspec import inspect as schema_of

from pvc_core.model.names import did_you_mean
from pvc_core.plugin.errors import ConfigError

T = TypeVar("T")

SECRET_FILE: Final = "the name of a file that holds the secret"  # noqa: S105
"""What a field of type Secret is said to expect."""
_SECRET_SIZE_MAX: Final = 65536
_SENSITIVE: Final = re.compile(
    r"passw|secret|token|passphrase|credential|community|api[_-]?key|(^|[_-])(key|kg)$", re.IGNORECASE
)
_CHOICES: Final = re.compile(r"^\^\(([\w.|-]+)\)\$$")


def sensitive(name: str) -> bool:
    """Say whether a field of this name may hold a secret, so that its value must not be shown."""
    return bool(_SENSITIVE.search(name)) and not name.endswith("_file")


class Secret:
    """A secret in a file of its own; a configuration holds the file's name only.

    Type of fields named ``*_file``.  It is read when it is used, never kept, so that a changed file works
    without a restart and no dump of an object can show it.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path: Final = path

    def read(self) -> str:
        """Return the file's text without the newline at its end.

        Raises ConfigError when it cannot be read, is empty, or may be read by every user of this machine.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ConfigError(f"cannot read the secret in {self.path}: {error.strerror}") from None
        try:
            # Asked of the open file: the name may lead elsewhere a moment later.
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"the secret {self.path} is not a regular file")
            if mode & stat.S_IRWXO:
                raise ConfigError(
                    f"the secret in {self.path} is open to every user (mode {stat.S_IMODE(mode):04o}); "
                    f"run: chmod 0600 {self.path}"
                )
            data = os.read(descriptor, _SECRET_SIZE_MAX + 1)
        finally:
            os.close(descriptor)
        if len(data) > _SECRET_SIZE_MAX:
            raise ConfigError(f"the secret in {self.path} is larger than {_SECRET_SIZE_MAX} bytes")
        try:
            text = data.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise ConfigError(f"the secret in {self.path} is not UTF-8 text") from None
        if not text:
            raise ConfigError(f"the secret file {self.path} is empty")
        return text

    def __repr__(self) -> str:
        return f"Secret(file {self.path!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.path == self.path

    def __hash__(self) -> int:
        return hash(self.path)


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with a section."""

    keys: tuple[str | int, ...]
    """Where: mapping keys and list indexes from the section's top."""
    message: str
    at_key: bool = False
    """It is about the key, not its value."""


class InvalidSection(ConfigError):
    """A section does not fit its schema; ``problems`` has them all, ``path`` is the section's own."""

    def __init__(self, path: str, problems: tuple[Problem, ...]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(f"{dotted(p.keys, path)}: {p.message}" for p in problems))


def dotted(keys: tuple[str | int, ...], path: str = "") -> str:
    """Return a place as people write it: ``cluster.coordinators[0].name``."""
    text = path
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else (f".{key}" if text else str(key))
    return text or "the file"


def decode(section: object, schema: type[T], path: str = "") -> T:
    """Return a section (plain mappings, lists, text, numbers) as ``schema``, a msgspec struct.

    Unknown keys are refused in every struct, and nothing is converted silently ("1" is not 1).  An absent
    section (None) is an empty one.  Raises InvalidSection, a ConfigError, with every problem found;
    ``path`` is what its message calls the section.
    """
    info = schema_of.type_info(schema)
    value = _without_empty_sections({} if section is None else section, info)
    problems = tuple(_walk(value, info, ()))
    if problems:
        raise InvalidSection(path, problems)
    try:
        return msgspec.convert(value, schema, dec_hook=_decode_custom)
    except msgspec.ValidationError as error:  # a rule of the schema's own, such as __post_init__
        raise InvalidSection(path, (_from_msgspec(error),)) from error


def _decode_custom(type_: type, value: object) -> object:
    if type_ is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError(f"{type_.__qualname__} cannot be a type of a configuration field")


def _from_msgspec(error: msgspec.ValidationError) -> Problem:
    message, _, place = str(error).partition(" - at `$")
    keys = tuple(int(index) if index else name for name, index in re.findall(r"\.([\w-]+)|\[(\d+)\]", place))
    return Problem(keys, message[:1].lower() + message[1:])


def _without_empty_sections(value: object, info: schema_of.Type) -> object:
    """Return the value with ``{}`` where a section is all comments, which YAML reads as nothing."""
    match info:
        case schema_of.Metadata():
            return _without_empty_sections(value, info.type)
        case schema_of.StructType() if value is None:
            return {}
        case schema_of.StructType() if isinstance(value, Mapping):
            types = {field.encode_name: field.type for field in info.fields}
            return {k: _without_empty_sections(v, types[k]) if k in types else v for k, v in value.items()}
        case _:
            return value


def _walk(value: object, info: schema_of.Type, keys: tuple[str | int, ...]) -> Iterator[Problem]:
    match info:
        case schema_of.Metadata():
            yield from _walk(value, info.type, keys)
        case schema_of.UnionType():
            options = [option for option in info.types if not isinstance(option, schema_of.NoneType)]
            if value is None and len(options) < len(info.types):
                return
            if len(options) == 1:
                yield from _walk(value, options[0], keys)
            elif all(any(True for _ in _walk(value, option, keys)) for option in options):
                yield _unfit(value, " or ".join(describe(option) for option in options), keys)
        case schema_of.StructType():
            yield from _walk_struct(value, info, keys)
        case schema_of.DictType():
            if not isinstance(value, Mapping):
                yield _unfit(value, describe(info), keys)
                return
            for key, item in value.items():
                if not isinstance(key, str):
                    yield Problem(keys, f"expected text as key, found {shown(key)}; put it in quotes")
                else:
                    yield from _walk(item, info.value_type, (*keys, key))
        case schema_of.ListType() | schema_of.VarTupleType() | schema_of.SetType() | schema_of.FrozenSetType():
            low, high = info.min_length or 0, info.max_length
            if not isinstance(value, list) or len(value) < low or (high is not None and len(value) > high):
                yield _unfit(value, describe(info), keys)
                return
            for index, item in enumerate(value):
                yield from _walk(item, info.item_type, (*keys, index))
        case _:
            if not _fits(value, info):
                yield _unfit(value, describe(info), keys, choices(info))


def _walk_struct(value: object, info: schema_of.StructType, keys: tuple[str | int, ...]) -> Iterator[Problem]:
    if not isinstance(value, Mapping):
        yield _unfit(value, "a mapping", keys)
        return
    fields = {field.encode_name: field for field in info.fields}
    for key in value:
        if key not in fields:
            known = ", ".join(fields) or "none: it takes no settings"
            hint = did_you_mean(str(key), fields) or f"; known keys: {known}"
            yield Problem((*keys, key if isinstance(key, int) else str(key)), f"unknown key{hint}", at_key=True)
    for name, field in fields.items():
        if name in value:
            yield from _walk(value[name], field.type, (*keys, name))
        elif field.required:
            yield Problem(keys, f"the key {name!r} is missing: expected {describe(field.type)}")


def _fits(value: object, info: schema_of.Type) -> bool:
    match info:
        case schema_of.BoolType():
            return isinstance(value, bool)
        case schema_of.IntType():
            return isinstance(value, int) and not isinstance(value, bool) and _in_range(value, info)
        case schema_of.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool) and _in_range(value, info)
        case schema_of.StrType():
            if not isinstance(value, str) or (info.pattern and not re.search(info.pattern, value)):
                return False
            return (info.min_length or 0) <= len(value) and (info.max_length is None or len(value) <= info.max_length)
        case schema_of.NoneType():
            return value is None
        case schema_of.EnumType():
            return value in [member.value for member in info.cls]
        case schema_of.LiteralType():
            return any(value == known and type(value) is type(known) for known in info.values)
        case schema_of.CustomType() if info.cls is Secret:
            return isinstance(value, str) and bool(value)
        case _:
            return True  # msgspec judges the rare ones


def _in_range(value: float, info: schema_of.IntType | schema_of.FloatType) -> bool:
    return (
        (info.ge is None or value >= info.ge)
        and (info.gt is None or value > info.gt)
        and (info.le is None or value <= info.le)
        and (info.lt is None or value < info.lt)
    )


def choices(info: schema_of.Type) -> tuple[str, ...]:
    """Return the words that a field may hold, when it may hold only certain words."""
    match info:
        case schema_of.Metadata():
            return choices(info.type)
        case schema_of.LiteralType():
            return tuple(str(value) for value in info.values)
        case schema_of.EnumType():
            return tuple(str(member.value) for member in info.cls)
        case schema_of.StrType() if info.pattern and (match_ := _CHOICES.match(info.pattern)):
            return tuple(match_[1].split("|"))
        case _:
            return ()


def describe(info: schema_of.Type) -> str:
    """Return what a field expects, for people: "a whole number from 1 to 65535"."""
    if words := choices(info):
        return f"one of {', '.join(words)}"
    match info:
        case schema_of.Metadata():
            return describe(info.type)
        case schema_of.UnionType():
            return " or ".join("nothing" if isinstance(t, schema_of.NoneType) else describe(t) for t in info.types)
        case schema_of.StructType() | schema_of.DictType():
            return "a mapping"
        case schema_of.ListType() | schema_of.VarTupleType() | schema_of.SetType() | schema_of.FrozenSetType():
            least = f" of at least {info.min_length}" if info.min_length else ""
            return f"a list{least} (each: {describe(info.item_type)})"
        case schema_of.BoolType():
            return "true or false"
        case schema_of.IntType():
            return "a whole number" + _range_text(info)
        case schema_of.FloatType():
            return "a number" + _range_text(info)
        case schema_of.StrType():
            pattern = f" matching {info.pattern}" if info.pattern else ""
            return f"{'text that is not empty' if info.min_length else 'text'}{pattern}"
        case schema_of.CustomType() if info.cls is Secret:
            return SECRET_FILE
        case _:
            return type(info).__name__.removesuffix("Type").lower()


def _range_text(info: schema_of.IntType | schema_of.FloatType) -> str:
    least = "from" if info.le is not None else "of at least"
    low = f"{least} {info.ge}" if info.ge is not None else f"above {info.gt:g}" if info.gt is not None else ""
    most = "to" if info.ge is not None else "of at most"
    high = f"{most} {info.le}" if info.le is not None else f"below {info.lt:g}" if info.lt is not None else ""
    text = " ".join(part for part in (low, high) if part)
    return f" {text}" if text else ""


def shown(value: object) -> str:
    """Return what was found, for people: short, with its kind where that is not plain."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {(value if len(value) <= 60 else value[:57] + '...')!r}"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _:
            return f"a {type(value).__name__}"


def _unfit(value: object, expected: str, keys: tuple[str | int, ...], words: tuple[str, ...] = ()) -> Problem:
    # What stands where a secret may be is not repeated: the message ends up in logs and terminals.
    found = "something else" if any(isinstance(k, str) and sensitive(k) for k in keys) else shown(value)
    hint = did_you_mean(value, words) if isinstance(value, str) and words else ""
    if expected.startswith("text") and isinstance(value, int | float):
        hint = "; put it in quotes if it is meant as text"
    return Problem(keys, f"expected {expected}, found {found}{hint}")
