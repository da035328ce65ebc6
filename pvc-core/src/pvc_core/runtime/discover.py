"""Which plugins are installed: one pass over the metadata of all distributions, importing none of them."""

import importlib.metadata
from importlib.metadata import EntryPoint
from typing import Final

from pvc_core.model.errors import PvcError
from pvc_core.model.names import did_you_mean

PLUGIN_GROUP: Final = "pvc.plugin"
HOOKS_GROUP: Final = "pvc.hooks"
GROUPS: Final = (PLUGIN_GROUP, "pvc.storage", "pvc.network", "pvc.fencing", "pvc.scheduling", HOOKS_GROUP)


class PluginFailure(PvcError):
    """A plugin cannot be used; ``stage`` is where it failed (see PluginStatus.stage)."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


class Index:
    """The entry points of all installed distributions, by group and name."""

    def __init__(self, groups: dict[str, tuple[EntryPoint, ...]]) -> None:
        self.groups: Final = groups

    def names(self, group: str) -> list[str]:
        """Return the names in a group, sorted, each once."""
        return sorted({entry.name for entry in self.groups.get(group, ())})

    def find(self, group: str, name: str) -> EntryPoint:
        """Return an entry point; raise PluginFailure (discover) when there is none, or more than one."""
        found = [entry for entry in self.groups.get(group, ()) if entry.name == name]
        if not found:
            known = self.names(group)
            installed = f"installed: {', '.join(known)}" if known else "none is installed"
            what = "plugin" if group == PLUGIN_GROUP else f"{group.removeprefix('pvc.')} entry point"
            hint = did_you_mean(name, known) or f"; {installed}"
            raise PluginFailure("discover", f"no distribution offers a {what} named {name!r}{hint}")
        if len(found) > 1:
            offers = " and ".join(f"{distribution_of(entry)} ({entry.value})" for entry in found)
            raise PluginFailure(
                "discover", f"{group} {name!r} is offered more than once, by {offers}: uninstall all but one"
            )
        return found[0]


def discover() -> Index:
    """Read the entry points of everything installed; of a distribution that is there twice, the first on the path."""
    everything = importlib.metadata.entry_points()
    return Index({group: tuple(everything.select(group=group)) for group in GROUPS})


def distribution_of(entry: EntryPoint) -> str:
    """Return name and version of the distribution that an entry point belongs to."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown distribution"
