"""Read, check, commit, and again when somebody else was faster."""

from collections.abc import Callable
from typing import Final, TypeVar

from pvc_core.model.errors import Conflict
from pvc_core.store.api import Failure, TransactionFailed

T = TypeVar("T")

ATTEMPTS: Final = 12
"""A refused transaction means that another writer succeeded, so this many others have to win in a row."""


def attempt(what: str, once: Callable[[], T]) -> T:
    """Return what ``once`` returns, calling it again while its transaction is refused.

    ``once`` reads everything it needs itself and ends with one commit, so a repetition decides on what is
    there now, and raises the clear error (name taken, in use) when that is why it was refused.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return once()
        except TransactionFailed:
            continue
    try:
        return once()
    except TransactionFailed as error:
        if error.failure is Failure.NO_NODE:
            raise Conflict(
                f"{what}: the state tree lacks the parent of {error.operation.path}; if no node ever started here, "
                "make it with: pvc cluster init"
            ) from error
        raise Conflict(
            f"{what}: others keep changing the same objects ({error}); nothing was changed: repeat"
        ) from error
