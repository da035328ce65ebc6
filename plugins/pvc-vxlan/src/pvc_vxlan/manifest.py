"""What the plugin ``vxlan`` is and offers."""

from typing import Final

from pvc_core.plugin import CommandSpec, Manifest

MANIFEST: Final = Manifest(
    name="vxlan",
    summary="Managed networks on EVPN VXLAN, with gateway, DHCP, DNS and firewall",
    api=(1, 2),
    network=("vxlan",),
    config="pvc_vxlan.config:VxlanConfig",
    validators={"vxlan": "pvc_vxlan.parameters:validate_network"},
    nic_validators={"vxlan": "pvc_vxlan.parameters:validate_nic"},
    commands=(
        CommandSpec(
            name="dhcp",
            extends="network",
            target="pvc_vxlan.cli.dhcp:dhcp",
            help="Leases and reservations of a managed network.",
        ),
        CommandSpec(
            name="acl",
            extends="network",
            target="pvc_vxlan.cli.acl:acl",
            help="The firewall of a managed network.",
        ),
    ),
)
