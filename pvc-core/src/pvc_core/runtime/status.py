"""What a node says about its plugins."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from pvc_core.model.names import did_you_mean
from pvc_core.model.node import PluginStatus
from pvc_core.plugin.specs.network import NetworkCapabilities
from pvc_core.plugin.specs.storage import StorageCapabilities
from pvc_core.runtime.binding import BINDINGS
from pvc_core.runtime.unit import Unit


class Plugin(msgspec.Struct):
    """An enabled plugin, loaded or not."""

    name: str
    version: str = ""
    stage: str = ""
    """Where loading it failed; empty: it did not."""
    error: str = ""
    offers: frozenset[tuple[str, str]] = frozenset()
    """Kind and name of the drivers that its manifest names."""
    units: list[Unit] = []


def plugin_status(plugin: Plugin) -> PluginStatus:
    """Return the state of a plugin now.

    ``failed``: nothing of it works; ``open``: its calls hang, so it gets none; ``degraded``: some of it
    works, or several of its calls in a row failed; ``healthy``.
    """
    state, stage, error = _state(plugin)
    return PluginStatus(
        name=plugin.name,
        state=state,
        version=plugin.version,
        stage=stage,
        error=error,
        capabilities=tuple(
            word
            for unit in plugin.units
            if unit.kind in BINDINGS and unit.ready and not unit.open
            for word in _words(unit)
        ),
        max_mtu={
            unit.name: unit.capabilities.max_mtu
            for unit in plugin.units
            if unit.ready and isinstance(unit.capabilities, NetworkCapabilities) and unit.capabilities.max_mtu
        },
        calls=sum(unit.calls for unit in plugin.units),
        failures=sum(unit.failures for unit in plugin.units),
        timeouts=sum(unit.timeouts for unit in plugin.units),
    )


def _words(unit: Unit) -> list[str]:
    """Return the capabilities that a driver gives its node, such as ``storage:dir`` and ``snapshots:dir``."""
    able = isinstance(unit.capabilities, StorageCapabilities) and unit.capabilities.snapshots
    return [unit.label, *([f"snapshots:{unit.name}"] if able else [])]


def _state(plugin: Plugin) -> tuple[Literal["healthy", "degraded", "open", "failed"], str, str]:
    if plugin.stage:
        return "failed", plugin.stage, plugin.error
    drivers = [unit for unit in plugin.units if unit.kind in BINDINGS]
    waiting = [unit for unit in drivers if not unit.ready]
    reasons = "; ".join(unit.reason if len(drivers) == 1 else f"{unit.label}: {unit.reason}" for unit in waiting)
    if drivers and len(waiting) == len(drivers):
        return "failed", "preflight", reasons
    hanging = [unit for unit in plugin.units if unit.open_lanes]
    used = [unit for unit in drivers if unit.ready] or plugin.units
    if used and all(unit.open if unit.kind in BINDINGS else unit.open_lanes for unit in used):
        return "open", "call", "; ".join(unit.last_error for unit in hanging)
    if waiting:
        return "degraded", "preflight", reasons
    if ill := [unit for unit in plugin.units if unit.sick or unit.open_lanes]:
        return "degraded", "call", "; ".join(unit.last_error for unit in ill)
    return "healthy", "", ""


def why_absent(plugins: Sequence[Plugin], kind: str, name: str) -> str:
    """Return why no driver of this name was loaded."""
    for plugin in plugins:
        if (kind, name) in plugin.offers:
            return f"plugin {plugin.name!r} failed ({plugin.stage}): {plugin.error}"
    known = [unit.name for plugin in plugins for unit in plugin.units if unit.kind == kind]
    offered = f"enabled: {', '.join(known)}" if known else "none is enabled"
    failed = [f"plugin {plugin.name!r} failed ({plugin.stage}): {plugin.error}" for plugin in plugins if plugin.stage]
    return "; ".join([f"no enabled plugin offers it{did_you_mean(name, known) or '; ' + offered}", *failed])
