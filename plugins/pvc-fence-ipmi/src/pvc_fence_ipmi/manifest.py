"""What the plugin ``fence-ipmi`` is and offers."""

from typing import Final

from pvc_core.plugin import Manifest

MANIFEST: Final = Manifest(
    name="fence-ipmi",
    summary="Fencing by a node's BMC, over IPMI 2.0 LAN (RMCP+)",
    api=(1, 0),
    fencing=("ipmi",),
    config="pvc_fence_ipmi.config:FenceIpmiConfig",
    validators={"ipmi": "pvc_fence_ipmi.parameters:validate_device"},
)
