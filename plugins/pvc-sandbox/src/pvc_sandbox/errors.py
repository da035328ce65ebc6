"""What can go wrong with a sandbox."""

from pvc_core.model.errors import PvcError


class SandboxError(PvcError):
    """The sandbox could not do what was asked; the message says what to do next."""
