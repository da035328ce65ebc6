"""The plugin's section of ``pvcnoded.yml``."""

from typing import Annotated, Literal

from msgspec import Meta, Struct


class CephConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How this node reaches the Ceph cluster."""

    conf: Annotated[
        str,
        Meta(
            min_length=1,
            description="Ceph's configuration file: the same path on all nodes, readable by QEMU's user.",
        ),
    ] = "/etc/ceph/ceph.conf"
    user: Annotated[
        str, Meta(min_length=1, description="Whose key the node's daemon uses, without the prefix client.")
    ] = "admin"
    keyring: Annotated[
        str, Meta(description="File with that key. Empty: where the configuration file says, or Ceph's own default.")
    ] = ""
    vm_user: Annotated[
        str,
        Meta(
            description="Whose key VMs use, without the prefix client. It is made when it does not exist and the daemon's "
            "key may do that. The daemon's own user: then its key is taken from the keyring."
        ),
    ] = "pvc-vm"
    state_pool: Annotated[
        str,
        Meta(
            min_length=1,
            description="Pool for what PVC remembers of nodes that were fenced: a few kilobytes. It is made when it does not "
            "exist; a pool of volumes will do.",
        ),
    ] = "pvc"
    external: Annotated[
        bool,
        Meta(
            description="Somebody else looks after this Ceph cluster: PVC uses it, and leaves its daemons and OSDs alone."
        ),
    ] = False
    osd_layout: Annotated[
        Literal["lvm", "raw"],
        Meta(
            description="How PVC puts OSDs on disks. lvm: logical volumes, by ceph-volume. raw: a whole disk for each, without "
            "LVM, for hosts that have no device-mapper."
        ),
    ] = "lvm"
