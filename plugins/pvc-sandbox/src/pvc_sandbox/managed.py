"""Managed networks (plugin ``vxlan``) in a sandbox: which plugins its nodes have for them, with which sections."""

from typing import Any, Final

from pvc_sandbox.layout import FLOATING_HOST, ROUTER_HOST, Layout
from pvc_sandbox.links import CARDS, CLUSTER, UPSTREAM
from pvc_sandbox.router import ASN

PLUGIN: Final = "vxlan"
"""A cluster with this plugin has FRR in its nodes, and a router outside."""
HOST_NETWORKS: Final = "hostnet"
PLUGINS: Final = (PLUGIN, HOST_NETWORKS)


def sections(layout: Layout, *, coordinator: bool) -> dict[str, dict[str, Any]]:
    """Return what the plugins' sections of a node say, where the plan says nothing else."""
    routers = (layout.upstream_address(ROUTER_HOST), layout.upstream_address6(ROUTER_HOST))
    upstream = [{"address": address, "asn": ASN} for address in routers]
    cluster = {
        "device": CARDS[CLUSTER],
        # By number, as the sandbox gives them already.
        "addresses": [f"{layout.cluster_address(0)}/24", f"{layout.cluster_address6(0)}/64"],
        "floating": [f"{layout.cluster_address(FLOATING_HOST)}/24", f"{layout.cluster_address6(FLOATING_HOST)}/64"],
    }
    outside = {
        "device": CARDS[UPSTREAM],
        "addresses": [f"{layout.upstream_address(0)}/24", f"{layout.upstream_address6(0)}/64"],
        "floating": [f"{layout.upstream_address(FLOATING_HOST)}/24", f"{layout.upstream_address6(FLOATING_HOST)}/64"],
        "gateways": list(routers),
    }
    return {
        PLUGIN: {"upstream": upstream} if coordinator else {},
        HOST_NETWORKS: {"cluster": cluster, "storage": {"same_as": "cluster"}, "upstream": outside},
    }
