"""What is known of OSDs and of the disks of a node.  Sizes are bytes."""

import msgspec

LEAST_DEVICE_BYTES = 1 << 30
"""An OSD keeps about as much for itself on the smallest disks."""
DESTROYED, NEW = "destroyed", "new"


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A block device as the kernel knows it."""

    path: str
    """Such as ``/dev/sdb``; of the running kernel: after a boot it may be another disk."""
    type: str
    """``disk``, ``loop``, ``mpath``, ``part``, ``lvm``, ..."""
    size_bytes: int
    stable: str = ""
    """Path that is this disk after every boot, if it has one."""
    read_only: bool = False
    rotational: bool = False
    nvme: bool = False
    mounted: tuple[str, ...] = ()
    model: str = ""
    serial: str = ""
    uses: tuple[str, ...] = ()
    """What lies on it: ``partition sdb1``, ``lvm vg-home``."""

    @property
    def name(self) -> str:
        """Return the path by which it is best known."""
        return self.stable or self.path

    @property
    def device_class(self) -> str:
        """Return the class that Ceph would give an OSD on it."""
        return "nvme" if self.nvme else "hdd" if self.rotational else "ssd"


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """Where the data of an OSD is, or is to be."""

    fsid: str
    """UUID of the OSD, decided before anything of it is made."""
    device: str
    part: int = 1
    parts: int = 1
    """It has part ``part`` of ``parts`` equal ones of the device."""
    db: str = ""
    """Volume group (layout ``lvm``) or device (layout ``raw``) for its metadata; empty: with the data."""
    db_bytes: int = 0
    """Size of its part of ``db``; 0: the whole of it."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An OSD whose data was found on disks of this node."""

    id: int
    fsid: str
    cluster: str
    """Fsid of the cluster that it belongs to."""
    device: str
    """The disk."""
    data: str
    """What holds the data: the disk, or a logical volume."""
    db: str = ""
    """What holds the metadata, if that is something else."""


class OsdRow(msgspec.Struct, frozen=True, kw_only=True):
    """An OSD as the monitors know it."""

    id: int
    fsid: str = ""
    node: str = ""
    """Its host in CRUSH's map, which is the node's name."""
    device: str = ""
    """The disk, as its daemon reported it last."""
    db: str = ""
    """The disk with its metadata, if that is another one."""
    device_class: str = ""
    size_bytes: int = 0
    """As the manager counts it; 0 while it is out, or not measured yet."""
    disk_bytes: int = 0
    """Of the disk, as its daemon reported it last."""
    used_bytes: int = 0
    used_percent: float = 0.0
    weight: float = 0.0
    """In CRUSH's map, TiB as a rule: its part of the data."""
    reweight: float = 0.0
    """0 to 1: what of that part it really gets; 0: it is out."""
    up: bool = False
    inside: bool = False
    """It is in: data is placed on it."""
    pgs: int = 0
    """Placement groups that it serves."""
    state: str = ""
    """``destroyed``: its data is gone, its id is kept for another disk; ``new``: it was never up; empty: neither."""
    flags: tuple[str, ...] = ()


class OsdList(msgspec.Struct, frozen=True, kw_only=True):
    """All OSDs of a cluster."""

    fsid: str
    osds: tuple[OsdRow, ...]
    flags: tuple[str, ...] = ()
    """Those of the whole cluster that people set."""
    copies: int
    """The most that a pool has, or a new one would have."""
    measured: bool = True
    """False: the manager does not answer, so sizes, use and placement groups are not known; they are 0."""
    answered_by: str = ""
    """Node that asked the monitors."""

    def of(self, id_: int) -> OsdRow | None:
        """Return an OSD by its id."""
        return next((osd for osd in self.osds if osd.id == id_), None)

    def with_fsid(self, fsid: str) -> OsdRow | None:
        """Return an OSD by its UUID."""
        return next((osd for osd in self.osds if osd.fsid == fsid), None)

    def host_bytes(self, device_class: str = "") -> dict[str, int]:
        """Return host -> bytes of the disks on which data is placed; those of one class only, unless it is empty."""
        found: dict[str, int] = {}
        for osd in self.osds:
            if osd.inside and osd.node and device_class in ("", osd.device_class):
                found[osd.node] = found.get(osd.node, 0) + osd.size_bytes
        return found


class Safety(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an OSD's data may be destroyed."""

    safe: bool
    pgs: int = 0
    """Placement groups that still rest on it."""
    why: str = ""


class DeviceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of a node, and whether an OSD can be made on it."""

    device: str
    path: str
    size_bytes: int
    device_class: str
    model: str = ""
    serial: str = ""
    free: bool
    found: tuple[str, ...] = ()
    """What speaks against it."""
    osds: tuple[int, ...] = ()
    """OSDs of this cluster on it."""


class AddPreview(msgspec.Struct, frozen=True, kw_only=True):
    """What an addition would come to."""

    device: str
    osds: int
    size_bytes: int
    """Of each OSD."""
    device_class: str
    db: str = ""
    db_bytes: int = 0
    warning: str = ""
    """The addition leaves hosts uneven; empty: it does not."""
