"""What the plugin ``bridge`` is and offers."""

from typing import Final

from pvc_core.plugin import Manifest

MANIFEST: Final = Manifest(
    name="bridge",
    summary="A Linux bridge per network on every node, with a NIC of the node as its uplink",
    api=(1, 0),
    network=("bridge",),
    config="pvc_bridge.config:BridgeConfig",
    validators={"bridge": "pvc_bridge.parameters:validate_network"},
)
