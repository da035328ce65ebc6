"""What all documents have in common: frozen, JSON, unknown fields ignored on reading (mixed versions)."""

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A frozen value inside a document."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """One znode.  Fields at their default are written too, so that a reader in another language sees them."""


class Condition(Value, frozen=True, kw_only=True):
    """One thing that is true of an object now, for people, scripts and the scheduler alike."""

    type: str
    """What it is about, such as ``Ready`` or ``Storage``."""
    ok: bool
    reason: str = ""
    """One CamelCase word for scripts."""
    message: str = ""
    """One sentence for people."""
    since: float = 0.0
    """When it last changed, in seconds since the epoch on the writer's clock: for display only."""


def with_condition(conditions: tuple[Condition, ...], new: Condition) -> tuple[Condition, ...]:
    """Return the conditions with ``new`` in place of the one of its type; an unchanged one keeps its ``since``."""
    for old in conditions:
        if old.type == new.type and (old.ok, old.reason, old.message) == (new.ok, new.reason, new.message):
            return conditions
    return (*(c for c in conditions if c.type != new.type), new)


def without_condition(conditions: tuple[Condition, ...], type_: str) -> tuple[Condition, ...]:
    """Return the conditions without the one of this type."""
    return tuple(c for c in conditions if c.type != type_)
