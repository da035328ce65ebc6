"""Distributions made on the fly, so that tests can install plugins, above all broken ones.

A distribution is what ``importlib.metadata`` sees: a ``*.dist-info`` directory on the path, with metadata
and entry points, and the modules beside it.
"""

import importlib
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pvc_core.config.schema import ClusterSection, Member, NodeConfig, NodeSection

GOOD_NETWORK: Final = '''
    """A network driver that works."""

    from pvc_core.model.network import NetworkSpec
    from pvc_core.model.vm import Nic
    from pvc_core.plugin import Context, NetworkCapabilities, NetworkDriver, NetworkState, NicSource


    class Driver(NetworkDriver):
        def __init__(self, context: Context, config: object) -> None:
            self.context = context
            self.config = config

        def network_capabilities(self) -> NetworkCapabilities:
            return NetworkCapabilities()

        def network_preflight(self) -> bool:
            return True

        def network_ensure(self, network: NetworkSpec) -> NetworkState:
            return NetworkState(device="br-" + network.name, mtu=1500)

        def network_remove(self, network: NetworkSpec) -> bool:
            return True

        def network_list(self) -> list[str]:
            return []

        def nic_attach(self, network: NetworkSpec, nic: Nic, vm: str, incoming: bool) -> NicSource:
            return NicSource(type="bridge", inner_xml="")

        def nic_detach(self, network: NetworkSpec, nic: Nic, vm: str) -> bool:
            return True
'''
"""Source of a module with a complete network driver ``Driver``; classes derived from it spoil one thing each."""


class Site:
    """A directory on the path into which distributions are put.  A context manager: it leaves nothing behind."""

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory
        self._modules_before: set[str] = set()

    def __enter__(self) -> Self:
        self._modules_before = set(sys.modules)
        sys.path.insert(0, str(self.directory))
        importlib.invalidate_caches()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.path.remove(str(self.directory))
        for name in set(sys.modules) - self._modules_before:
            origin = getattr(sys.modules[name], "__file__", None) or ""
            if origin.startswith(str(self.directory)):
                del sys.modules[name]
        importlib.invalidate_caches()

    def module(self, name: str, source: str) -> None:
        """Write a module (``package.module`` makes the packages)."""
        *packages, last = name.split(".")
        directory = self.directory.joinpath(*packages)
        directory.mkdir(parents=True, exist_ok=True)
        for depth in range(1, len(packages) + 1):
            self.directory.joinpath(*packages[:depth], "__init__.py").touch()
        (directory / f"{last}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        importlib.invalidate_caches()

    def distribution(
        self,
        name: str,
        entry_points: Mapping[str, Mapping[str, str]],
        *,
        version: str = "1.0",
        requires: tuple[str, ...] = ("pvc-core>=0.1,<0.2",),
    ) -> None:
        """Install the metadata of a distribution: group -> entry point -> ``module:attribute``."""
        info = self.directory / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
        metadata += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(metadata) + "\n", encoding="utf-8")
        lines = []
        for group, entries in entry_points.items():
            lines += [f"[{group}]", *(f"{entry} = {target}" for entry, target in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        importlib.invalidate_caches()

    def plugin(
        self,
        name: str,
        driver: str = "",
        *,
        manifest: str = "",
        api: str = "HOOK_API",
        kind: str = "network",
        base: str = GOOD_NETWORK,
    ) -> None:
        """Install the plugin ``name`` with one driver (or, kind "hooks", one object with hooks) of the same name.

        Its modules are ``plug_<name>.manifest`` and ``plug_<name>.driver``; the driver module is ``base`` with
        ``driver`` after it, and the last class there called ``Driver`` is the one.  ``manifest`` is put
        among the manifest's arguments; with an own ``<kind>=`` in it, none is added.
        """
        package = f"plug_{name.replace('-', '_')}"
        offer = "" if f"{kind}=" in manifest else f"{kind}=({name!r},),"
        self.module(
            f"{package}.manifest",
            f"from pvc_core.plugin import HOOK_API, CommandSpec, Manifest\n"
            f"MANIFEST = Manifest(name={name!r}, summary='for a test', api={api}, {offer} {manifest})\n",
        )
        self.module(f"{package}.driver", textwrap.dedent(base) + "\n" + textwrap.dedent(driver))
        (self.directory / package / "py.typed").touch()
        self.distribution(
            f"pvc-{name}",
            {"pvc.plugin": {name: f"{package}.manifest:MANIFEST"}, f"pvc.{kind}": {name: f"{package}.driver:Driver"}},
        )


def node_config(plugins: Mapping[str, dict[str, Any] | None]) -> NodeConfig:
    """Return the configuration of ``node1``, the only coordinator, which enables these plugins: name -> section."""
    return NodeConfig(
        cluster=ClusterSection(coordinators=(Member(name="node1", address="10.0.0.1"),)),
        node=NodeSection(name="node1", address="10.0.0.1"),
        plugins=dict(plugins),
    )
