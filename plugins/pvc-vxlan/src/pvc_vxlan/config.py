"""The plugin's section of ``pvcnoded.yml``."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Upstream(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A BGP router outside the cluster that learns the client networks from this node while it is the primary."""

    address: Annotated[str, Meta(description="Its address, IPv4 or IPv6.")]
    asn: Annotated[int, Meta(ge=1, le=4294967295, description="Its number of autonomous system.")]
    password_file: Annotated[str, Meta(description="File with the password of the session (TCP-MD5). Empty: none.")] = (
        ""
    )


class VxlanConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of this node."""

    vtep: Annotated[
        str, Meta(description="This node's address in the underlay, IPv4 or IPv6. Empty: its cluster address.")
    ] = ""
    control: Annotated[
        Literal["evpn", "flood"],
        Meta(
            description="Who tells nodes where a guest is. evpn: BGP, by FRR; the underlay is IPv4, as FRR 8.4 knows no ends of tunnels "
            "with IPv6 addresses. flood: nobody; nodes copy frames for those unknown to all others, and learn from frames, "
            "also over IPv6. The same on every node."
        ),
    ] = "evpn"
    reflectors: Annotated[
        dict[str, str],
        Meta(description="Coordinator -> its address in the underlay. Empty: the coordinators' cluster addresses."),
    ] = {}
    fabric: Annotated[
        tuple[str, ...],
        Meta(
            description="Prefixes from which a coordinator takes nodes in as clients of its route reflector. Empty: the prefix "
            "of this node's underlay address, as the kernel has it."
        ),
    ] = ()
    asn: Annotated[int, Meta(ge=1, le=4294967295, description="The cluster's number of autonomous system.")] = 65000
    password_file: Annotated[
        str, Meta(description="File with the password of the sessions between nodes (TCP-MD5). Empty: none.")
    ] = ""
    upstream: Annotated[
        tuple[Upstream, ...], Meta(description="Routers outside that learn the client networks. Coordinators only.")
    ] = ()
    port: Annotated[int, Meta(ge=1, le=65535, description="UDP port of VXLAN.")] = 4789
    domain: Annotated[str, Meta(description="Networks that name no domain have one in this.")] = "pvc.internal"
    dns_servers: Annotated[
        tuple[str, ...],
        Meta(description="Whom gateways ask for names that are not theirs, unless the network says so."),
    ] = ()
    protected: Annotated[
        tuple[str, ...],
        Meta(
            description="Prefixes of the nodes' own networks, which guests of managed networks do not reach by the gateway. Empty: those "
            "of the underlay's device. The node with the gateways itself is always protected."
        ),
    ] = ()
    frr_directory: Annotated[str, Meta(description="Directory of FRR's integrated configuration, `frr.conf`.")] = (
        "/etc/frr"
    )
    frr_service: Annotated[str, Meta(description="FRR's unit.")] = "frr"
    bridge_netfilter: Annotated[
        bool,
        Meta(
            description="Leave net.bridge.bridge-nf-call-* of this node as they are: frames between guests then pass its firewall. false: they are switched off."
        ),
    ] = False
