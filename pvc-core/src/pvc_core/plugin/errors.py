"""Errors that plugins raise, and those that are raised about plugins."""

from pvc_core.model.errors import PvcError


class DriverError(PvcError):
    """A driver could not do what it was asked.

    ``retryable`` tells the caller whether the same call may succeed later (the default) or only after
    somebody changed something.  Any other exception from a driver is wrapped in this one and logged with
    its traceback; raise this one for failures that are expected in operation.
    """

    def __init__(self, message: str, *, retryable: bool = True, plugin: str = "", hook: str = "") -> None:
        super().__init__(message)
        self.retryable = retryable
        self.plugin = plugin
        self.hook = hook

    def __str__(self) -> str:
        where = ".".join(part for part in (self.plugin, self.hook) if part)
        return f"{where}: {self.args[0]}" if where else str(self.args[0])


class _NotRetryable(DriverError):
    """What its kinds have in common: the same call fails again until somebody changed something."""

    def __init__(self, message: str, *, plugin: str = "", hook: str = "") -> None:
        super().__init__(message, retryable=False, plugin=plugin, hook=hook)


class Unsupported(_NotRetryable):
    """The driver does not offer this; its capabilities said so beforehand."""


class ObjectMissing(_NotRetryable):
    """The volume, snapshot or network to work on does not exist in the backend."""


class ObjectExists(_NotRetryable):
    """What was to be created exists already, and is not the same."""


class ObjectBusy(DriverError):
    """The object is in use (attached, protected, has clones), so it cannot be changed now."""


class NotReady(DriverError):
    """The backend cannot be reached or is not set up yet; the same call works once it is."""


class AuthFailed(_NotRetryable):
    """The backend refused the credentials."""


class DeadlineExceeded(DriverError):
    """The call did not come back in time; what it did is unknown."""


class CircuitOpen(DriverError):
    """Calls of this plugin are stuck, so it gets no more until one of them comes back."""


class PluginContractError(_NotRetryable):
    """The plugin returned something that the hook's specification does not allow."""


class ConfigError(PvcError):
    """A configuration file is wrong; says file, line, key, what was found and what is expected."""

    exit_status = 2
