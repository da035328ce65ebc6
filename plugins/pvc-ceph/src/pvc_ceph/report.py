"""What a Ceph cluster says of itself, as commands and health checks use it.  Bytes, seconds since the epoch, no words of Ceph."""

import enum

import msgspec


class Severity(enum.StrEnum):
    """Ceph's own words for how bad something is."""

    OK = "HEALTH_OK"
    WARN = "HEALTH_WARN"
    ERROR = "HEALTH_ERR"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Something that Ceph finds wrong."""

    code: str
    """Such as ``OSD_DOWN``: https://docs.ceph.com/en/pacific/rados/operations/health-checks/."""
    severity: Severity
    message: str
    muted: bool = False


class Daemon(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor or a manager."""

    name: str
    host: str
    """Empty while it does not run."""
    address: str
    state: str
    """Monitor: leader, in quorum, out of quorum.  Manager: active, standby."""
    version: str = ""

    @property
    def works(self) -> bool:
        """Whether it does its part."""
        return self.state != "out of quorum"


class OsdCounts(msgspec.Struct, frozen=True, kw_only=True):
    """OSDs: all, those that run, those that get data."""

    total: int
    up: int
    in_: int = msgspec.field(name="in")


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What clients do now, and what Ceph does for its copies, in a second."""

    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0
    recovered_bytes: int = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster as a whole."""

    fsid: str
    severity: Severity
    checks: tuple[Check, ...]
    monitors: tuple[Daemon, ...]
    managers: tuple[Daemon, ...]
    osds: OsdCounts
    flags: tuple[str, ...]
    """Set for all OSDs, such as noout."""
    groups: dict[str, int]
    """State of placement groups -> how many."""
    total_bytes: int
    """Raw, all disks together."""
    used_bytes: int
    traffic: Traffic = Traffic()


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a node finds the cluster, and its own part of it."""

    status: Status
    down: tuple[str, ...] = ()
    """Its OSDs that do not run."""


class PoolUse(msgspec.Struct, frozen=True, kw_only=True):
    """A pool in Ceph."""

    name: str
    pvc: str = ""
    """Id of PVC's pool, when it is one."""
    copies: int
    mincopies: int
    groups: int
    objects: int
    stored_bytes: int
    """As guests see them."""
    raw_bytes: int
    """With all copies."""
    free_bytes: int
    """As guests can still write them, until the fullest disk is full."""


class HostUse(msgspec.Struct, frozen=True, kw_only=True):
    """The OSDs of a host together."""

    name: str
    osds: int
    up: int
    total_bytes: int
    used_bytes: int


class ClassUse(msgspec.Struct, frozen=True, kw_only=True):
    """All OSDs of a device class together."""

    name: str
    total_bytes: int
    used_bytes: int


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """Where the space is."""

    total_bytes: int
    used_bytes: int
    classes: tuple[ClassUse, ...]
    hosts: tuple[HostUse, ...]
    pools: tuple[PoolUse, ...]
