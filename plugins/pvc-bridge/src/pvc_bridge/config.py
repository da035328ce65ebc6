"""The plugin's section of ``pvcnoded.yml``."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class BridgeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of this node."""

    device: Annotated[
        str,
        Meta(
            max_length=15,
            description="NIC of this node for networks that name none. Empty: such networks end at this node.",
        ),
    ] = ""
    vlan_mode: Annotated[
        Literal["subinterface", "filtering"],
        Meta(
            description="How VLANs are made. subinterface: an 802.1Q device per network (kernel module 8021q). filtering: a bridge per NIC that filters VLANs (kernel with CONFIG_BRIDGE_VLAN_FILTERING)."
        ),
    ] = "subinterface"
    untagged_vlan: Annotated[
        int,
        Meta(
            ge=1,
            le=4094,
            description="With vlan_mode filtering: number that frames without a tag have inside the filtering bridge; no network can have it as its VLAN.",
        ),
    ] = 4094
    bridge_netfilter: Annotated[
        bool,
        Meta(
            description="Leave net.bridge.bridge-nf-call-* of this node as they are: frames between guests then pass its firewall. false: they are switched off."
        ),
    ] = False
