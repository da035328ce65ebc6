"""Flags that people set: https://docs.ceph.com/en/pacific/rados/operations/health-checks/ (OSDMAP_FLAGS)."""

from typing import Final

CLUSTER_FLAGS: Final = (
    "noout",
    "noin",
    "nodown",
    "noup",
    "norebalance",
    "nobackfill",
    "norecover",
    "noscrub",
    "nodeep-scrub",
    "pause",
)
OSD_FLAGS: Final = ("noout", "noin", "nodown", "noup")
"""Those that single OSDs can have."""
