"""What the plugin ``hostnet`` is and offers."""

from typing import Final

from pvc_core.plugin import CommandSpec, Manifest

MANIFEST: Final = Manifest(
    name="hostnet",
    summary="The nodes' own networks (upstream, cluster, storage) and the addresses that move with the primary role",
    api=(1, 2),
    hooks=("hostnet",),
    config="pvc_hostnet.config:HostnetConfig",
    commands=(
        CommandSpec(
            name="network",
            extends="node",
            target="pvc_hostnet.cli.network:network",
            help="Show the nodes' own networks and floating addresses.",
        ),
    ),
)
