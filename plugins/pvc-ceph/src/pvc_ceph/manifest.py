"""What the plugin ``ceph`` is and offers."""

from typing import Final

from pvc_core.plugin import CommandSpec, Manifest

MANIFEST: Final = Manifest(
    name="ceph",
    summary="Replicated block devices on Ceph (RBD)",
    api=(1, 2),
    storage=("ceph-rbd",),
    config="pvc_ceph.config:CephConfig",
    validators={"ceph-rbd": "pvc_ceph.parameters:validate_pool"},
    commands=(
        CommandSpec(
            name="status",
            extends="storage",
            target="pvc_ceph.cli.status:status",
            help="Show how Ceph is: its health, its daemons, what it does now.",
        ),
        CommandSpec(
            name="blocked",
            extends="storage",
            target="pvc_ceph.cli.blocked:blocked",
            help="List the clients that Ceph refuses.",
        ),
        CommandSpec(
            name="unblock",
            extends="storage",
            target="pvc_ceph.cli.blocked:unblock",
            help="Let the clients of a node write again.",
        ),
        CommandSpec(
            name="util",
            extends="storage",
            target="pvc_ceph.cli.status:util",
            help="Show where Ceph's space is: by pool, by tier, by host.",
        ),
        CommandSpec(
            name="plan",
            extends="storage",
            target="pvc_ceph.cli.plan:plan_command",
            help="Say how much a Ceph cluster would hold and survive.",
        ),
        CommandSpec(
            name="osd",
            extends="storage",
            target="pvc_ceph.cli.osd:osd",
            help="Add, remove and look after Ceph's OSDs.",
        ),
    ),
)
