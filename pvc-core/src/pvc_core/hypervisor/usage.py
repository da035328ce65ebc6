"""Guests' figures from libvirt's bulk statistics; CPU load is the difference between two readings."""

from collections.abc import Mapping
from typing import Any

from pvc_core.model.node import GuestUsage


class UsageMeter:
    """Remembers the last reading of each guest.  One thread at a time."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, float]] = {}

    def read(self, records: Mapping[str, Mapping[str, Any]], now: float) -> dict[str, GuestUsage]:
        """Return the figures in ``records`` (VM id -> ``virConnectGetAllDomainStats`` names); ``now``: seconds.

        The CPU load of a guest seen for the first time is 0.
        """
        last, self._last = self._last, {}
        usage = {}
        for vm, stats in records.items():
            cpu_ns = int(stats.get("cpu.time", 0))
            self._last[vm] = (cpu_ns, now)
            before_ns, before = last.get(vm, (cpu_ns, now))
            busy = (cpu_ns - before_ns) / 1e9 / (now - before) * 100 if now > before else 0.0
            usage[vm] = GuestUsage(
                cpu_percent=round(max(0.0, busy), 1),  # counts from zero again after a migration
                memory_used_mib=_memory_kib(stats) // 1024,
                disk_read_bytes=_sum(stats, "block", "rd.bytes"),
                disk_write_bytes=_sum(stats, "block", "wr.bytes"),
                net_rx_bytes=_sum(stats, "net", "rx.bytes"),
                net_tx_bytes=_sum(stats, "net", "tx.bytes"),
            )
        return usage


def _memory_kib(stats: Mapping[str, Any]) -> int:
    """What the guest itself calls used, or the memory of its process when it does not say."""
    available, usable = stats.get("balloon.available"), stats.get("balloon.usable")
    if available and usable is not None:
        return int(available) - int(usable)
    return int(stats.get("balloon.rss", 0))


def _sum(stats: Mapping[str, Any], device: str, counter: str) -> int:
    count = int(stats.get(f"{device}.count", 0))
    return sum(int(stats.get(f"{device}.{index}.{counter}", 0)) for index in range(count))
