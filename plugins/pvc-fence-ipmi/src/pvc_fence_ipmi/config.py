"""The plugin's section of ``pvcnoded.yml``."""

from typing import Annotated, Final

from msgspec import Meta, Struct

CALL_MAX_S: Final = 15
POWER_MAX_S: Final = 45
"""Below the deadlines of the hooks, 20 and 60 s, by the time that the last calls, and their end by force, may take."""


class FenceIpmiConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of this node."""

    ipmitool: Annotated[str, Meta(min_length=1, description="The ipmitool program, 1.8.18 or newer.")] = "ipmitool"
    answer_timeout: Annotated[
        int,
        Meta(ge=1, le=3, description="Seconds until an unanswered request is sent again, one more each further time."),
    ] = 1
    answer_retries: Annotated[
        int,
        Meta(
            ge=1,
            le=4,
            description="How often a request is sent. The first one goes out in two forms, so that a BMC that is not "
            "there is given up after 2, 6, 12 or 20 s with an answer_timeout of 1.",
        ),
    ] = 2
    status_timeout: Annotated[
        float,
        Meta(gt=0, le=CALL_MAX_S, description="Seconds for reading the power once; then ipmitool is killed."),
    ] = 15.0
    power_timeout: Annotated[
        float,
        Meta(gt=0, le=POWER_MAX_S, description="Seconds for switching the power, until it has been read back."),
    ] = 45.0
    poll_interval: Annotated[
        float, Meta(gt=0, le=10, description="Seconds between two readings while the power is being switched.")
    ] = 0.5
    resend_interval: Annotated[
        float,
        Meta(gt=0, description="Seconds after which a command is given again while the power reads as before."),
    ] = 10.0
