"""The root of all errors that a person may see, and those that are about what was asked.

Every message says what was asked, what was found and what to do next.  ``exit_status`` is what the
CLI ends with: 1 for a request that could not be carried out, 2 for one that was wrong in itself.
"""


class PvcError(Exception):
    """Root of all errors with a meaning for the person who reads them."""

    exit_status = 1


class InvalidRequest(PvcError):
    """The request is wrong in itself: nothing was changed."""

    exit_status = 2


class NotFound(PvcError):
    """The named object does not exist."""


class AlreadyExists(PvcError):
    """The name or id is taken."""


class InUse(PvcError):
    """The object is used by another, so it cannot be changed or deleted."""


class Conflict(PvcError):
    """Somebody changed the object meanwhile: read again and repeat."""


class NoNodeFits(PvcError):
    """No node can take the VM; ``reasons`` says why, per node."""

    def __init__(self, message: str, reasons: dict[str, str]) -> None:
        super().__init__(message)
        self.reasons = reasons


class Unavailable(PvcError):
    """The cluster's state store, or a node, does not answer."""
