"""What all installed plugins say about themselves, without any driver being imported.

The CLI reads this at every start, so it imports msgspec and the manifests only.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeVar

from pvc_core.plugin.manifest import Manifest
from pvc_core.plugin.version import incompatibility
from pvc_core.runtime.discover import PLUGIN_GROUP, Entry, Index, PluginFailure, distribution_of
from pvc_core.runtime.scan import scan

T = TypeVar("T")


class Installed(NamedTuple):
    """An installed plugin: its manifest, or why that cannot be used."""

    name: str
    entry: Entry
    manifest: Manifest | None
    error: str = ""

    @property
    def distribution(self) -> str:
        """Name and version of the distribution; reads its metadata."""
        return distribution_of(self.entry)


def manifests(index: Index | None = None) -> list[Installed]:
    """Return all installed plugins by name; a broken one has no manifest but an error.  Never raises."""
    index = index or Index({PLUGIN_GROUP: scan(PLUGIN_GROUP)})
    found = []
    for name in index.names(PLUGIN_GROUP):
        try:
            entry = index.find(PLUGIN_GROUP, name)
        except PluginFailure as error:  # two distributions of one name: none of them is taken
            entries = [entry for entry in index.groups[PLUGIN_GROUP] if entry.name == name]
            found.append(Installed(name, entries[0], None, str(error)))
            continue
        try:
            found.append(Installed(name, entry, load_manifest(entry)))
        except PluginFailure as error:
            found.append(Installed(name, entry, None, str(error)))
    return found


def load_manifest(entry: Entry) -> Manifest:
    """Import a manifest and check it and its hook API; raise PluginFailure (discover or gate)."""
    manifest = contain("discover", entry.load)
    if not isinstance(manifest, Manifest):
        raise PluginFailure("discover", f"{entry.value} is a {type(manifest).__name__}, not a Manifest")
    if manifest.name != entry.name:
        raise PluginFailure(
            "discover", f"its manifest calls it {manifest.name!r}, its entry point {entry.name!r}: make them equal"
        )
    if (reason := incompatibility(manifest.api)) is not None:
        raise PluginFailure("gate", f"{distribution_of(entry)}: {reason}")
    return manifest


def validator(
    driver: str, index: Index | None = None, *, of: Literal["validators", "nic_validators"] = "validators"
) -> Callable[..., Any] | None:
    """Return the check that the plugin of this driver brings, if it has one; ``of``: the manifest's field that names it.

    The function gets what the manifest says and raises InvalidRequest.  A plugin that is not
    installed where the question is asked has none: the node that carries the change out checks again.
    Raises PluginFailure when the plugin names a function that cannot be imported.
    """
    for installed in manifests(index):
        named = getattr(installed.manifest, of) if installed.manifest is not None else {}
        if driver in named:
            target = named[driver]
            function: Callable[..., Any] = contain("import", functools.partial(resolve, target))
            return function
    return None


def resolve(target: str) -> Any:
    """Import ``package.module:attribute``."""
    module, _, attributes = target.partition(":")
    value: Any = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        value = getattr(value, attribute)
    return value


def contain(stage: str, function: Callable[[], T]) -> T:
    """Call a function that runs a plugin's code, and turn whatever it raises into PluginFailure.

    Also SystemExit: importing a module that calls ``sys.exit()`` must not end the daemon.  Only
    KeyboardInterrupt goes through.
    """
    try:
        return function()
    except (KeyboardInterrupt, PluginFailure):
        raise
    except BaseException as error:
        raise PluginFailure(stage, describe(error)) from error


_OWN: Final = ("importlib", "pvc_core/runtime", "pluggy", "stevedore", "threading.py")


def describe(error: BaseException) -> str:
    """Return an exception for people: its type, its text, and the line of the plugin that raised it."""
    if isinstance(error, SystemExit):
        text = f"it called sys.exit({error.code!r})"
    else:
        text = type(error).__name__ + (f": {first}" if (first := str(error).strip().partition("\n")[0]) else "")
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        if not any(part in frame.filename for part in _OWN):
            return f"{text} ({frame.filename}:{frame.lineno})"
    return text
