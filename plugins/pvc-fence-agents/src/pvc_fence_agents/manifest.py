"""What the plugin ``fence-agents`` is and offers."""

from typing import Final

from pvc_core.plugin import Manifest

MANIFEST: Final = Manifest(
    name="fence-agents",
    summary="Fencing with any fence agent of ClusterLabs: PDUs, Redfish, blades, hypervisors",
    api=(1, 0),
    fencing=("agent",),
    config="pvc_fence_agents.config:FenceAgentsConfig",
    validators={"agent": "pvc_fence_agents.parameters:validate_device"},
)
