"""The plugin's section of ``pvcnoded.yml``."""

from typing import Annotated

from msgspec import Meta, Struct


class BridgeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of this node."""

    device: Annotated[
        str,
        Meta(
            max_length=15,
            description="NIC of this node for networks that name none; one network can have it. Empty: such networks end at this node.",
        ),
    ] = ""
    bridge_netfilter: Annotated[
        bool,
        Meta(
            description="Leave net.bridge.bridge-nf-call-* of this node as they are: frames between guests then pass its firewall. false: they are switched off."
        ),
    ] = False
