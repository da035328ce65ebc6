"""The plugin's section of ``pvcnoded.yml``."""

from typing import Annotated, Final

from msgspec import Meta, Struct

STATUS_MAX_S: Final = 15
POWER_MAX_S: Final = 50
"""Below the deadlines of the hooks, 20 and 60 s, by the time that killing a stubborn agent may take."""

AgentName = Annotated[str, Meta(pattern=r"^fence_[a-z0-9_]+\Z")]


class FenceAgentsConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of this node."""

    directory: Annotated[str, Meta(pattern=r"^/", description="Where the fence agents are.")] = "/usr/sbin"
    status_timeout: Annotated[
        float,
        Meta(gt=0, le=STATUS_MAX_S, description="Seconds for reading the power once; then the agent is killed."),
    ] = 15.0
    power_timeout: Annotated[
        float,
        Meta(gt=0, le=POWER_MAX_S, description="Seconds for switching the power, until it has been read back."),
    ] = 45.0
    believed: Annotated[
        tuple[AgentName, ...],
        Meta(description="Agents whose 'off' counts as proof although they do not cut power (fence_scsi, fence_sbd)."),
    ] = ()
