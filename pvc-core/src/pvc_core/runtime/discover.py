"""Which plugins are installed: one pass over the metadata of all distributions, importing none of them."""

from typing import TYPE_CHECKING, Any, Final, Protocol

from pvc_core.model.errors import PvcError
from pvc_core.model.names import did_you_mean

PLUGIN_GROUP: Final = "pvc.plugin"
HOOKS_GROUP: Final = "pvc.hooks"
GROUPS: Final = (PLUGIN_GROUP, "pvc.storage", "pvc.network", "pvc.fencing", "pvc.scheduling", HOOKS_GROUP)


if TYPE_CHECKING:
    from importlib.metadata import Distribution


class Entry(Protocol):
    """An entry point: of ``importlib.metadata``, or of ``scan``."""

    @property
    def name(self) -> str: ...

    @property
    def value(self) -> str: ...

    @property
    def module(self) -> str: ...

    @property
    def dist(self) -> "Distribution | None": ...

    def load(self) -> Any:
        """Import and return the object."""


class PluginFailure(PvcError):
    """A plugin cannot be used; ``stage`` is where it failed (see PluginStatus.stage)."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


class Index:
    """The entry points of all installed distributions, by group and name."""

    def __init__(self, groups: dict[str, tuple[Entry, ...]]) -> None:
        self.groups: Final = groups

    def names(self, group: str) -> list[str]:
        """Return the names in a group, sorted, each once."""
        return sorted({entry.name for entry in self.groups.get(group, ())})

    def find(self, group: str, name: str) -> Entry:
        """Return an entry point; raise PluginFailure (discover) when there is none, or more than one."""
        found = [entry for entry in self.groups.get(group, ()) if entry.name == name]
        if not found:
            known = self.names(group)
            installed = f"installed: {', '.join(known)}" if known else "none is installed"
            what = "plugin" if group == PLUGIN_GROUP else f"{group.removeprefix('pvc.')} entry point"
            hint = did_you_mean(name, known) or f"; {installed}"
            raise PluginFailure("discover", f"no distribution offers a {what} named {name!r}{hint}")
        if len(found) > 1:
            offers = " and ".join(sorted(f"{distribution_of(entry)} ({entry.value})" for entry in found))
            raise PluginFailure(
                "discover", f"{group} {name!r} is offered more than once, by {offers}: uninstall all but one"
            )
        return found[0]


def discover() -> Index:
    """Read the entry points of everything installed; of a distribution that is there twice, the first on the path."""
    import importlib.metadata

    everything = importlib.metadata.entry_points()
    return Index({group: tuple(everything.select(group=group)) for group in GROUPS})


def distribution_of(entry: Entry) -> str:
    """Return name and version of the distribution that an entry point belongs to."""
    dist = entry.dist
    return f"{dist.name} {dist.version}" if dist is not None else "an unknown distribution"
