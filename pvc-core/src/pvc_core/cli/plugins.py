"""What the installed plugins' manifests add to the command tree; nothing but the manifests is imported."""

from collections.abc import Callable
from typing import NamedTuple

from pvc_core.plugin.manifest import CommandSpec


class PluginCommand(NamedTuple):
    """A command of a plugin."""

    plugin: str
    spec: CommandSpec


def installed_commands(warn: Callable[[str], None]) -> list[PluginCommand]:
    """Return the commands of all installed plugins; a manifest that cannot be used is one warning."""
    from pvc_core.runtime.manifests import manifests

    commands = []
    for installed in manifests():
        if installed.manifest is None:
            warn(f"plugin {installed.name!r} is left out: {installed.error}; run: pvc plugin doctor {installed.name}")
        else:
            commands += [PluginCommand(installed.name, spec) for spec in installed.manifest.commands]
    return commands
