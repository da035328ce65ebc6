"""Managed networks (plugin ``vxlan``) in a sandbox: which plugins its nodes have for them, with which sections."""

from typing import Any, Final

from pvc_sandbox.layout import ROUTER_HOST, Layout
from pvc_sandbox.router import ASN

PLUGIN: Final = "vxlan"
"""A cluster with this plugin has FRR in its nodes, and a router outside."""
HOST_NETWORKS: Final = "hostnet"
PLUGINS: Final = (PLUGIN, HOST_NETWORKS)


def sections(layout: Layout, *, coordinator: bool) -> dict[str, dict[str, Any]]:
    """Return what the plugins' sections of a node say, where the plan says nothing else."""
    routers = (layout.upstream_address(ROUTER_HOST), layout.upstream_address6(ROUTER_HOST))
    upstream = [{"address": address, "asn": ASN} for address in routers]
    return {
        PLUGIN: {"upstream": upstream} if coordinator else {},
        HOST_NETWORKS: {},
    }
