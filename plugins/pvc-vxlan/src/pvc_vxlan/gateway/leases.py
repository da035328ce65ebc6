"""Leases: what dnsmasq tells of them, and how they survive the gateway's move to another node.

dnsmasq keeps no lease file (``leasefile-ro``).  It calls ``SCRIPT`` for each change, one call after the other, so the script
only puts a file into a spool; and once at its start with ``init``, when it takes what the script prints for its leases
(dnsmasq(8), ``--dhcp-script``).  A lease ends at an absolute time, so the coordinators' clocks must agree to within a small
part of the lease time.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pvc_core.plugin import DriverError, NetworkNic, Records
from pvc_vxlan.gateway.directory import Directory, read

DIRECTORY_VARIABLE: Final = "PVC_GATEWAY"
"""In dnsmasq's environment, which its scripts inherit: the directory of the network."""

SCRIPT: Final = """\
#!/bin/sh
# Called by dnsmasq of pvc-vxlan: puts each change of a lease into the spool of the network's gateway.
case $1 in
  init) exec cat "$PVC_GATEWAY/leases" ;;
  add|old|del) ;;
  *) exit 0 ;;
esac
new=$PVC_GATEWAY/.spool.$3
printf '%s\\n' "$1" "$2" "$3" "${4-}" "${DNSMASQ_LEASE_EXPIRES-0}" "${DNSMASQ_CLIENT_ID-}" "${DNSMASQ_IAID-}" \\
  "${DNSMASQ_MAC-}" >"$new" && exec mv -f "$new" "$PVC_GATEWAY/spool/$3"
"""
_LINES: Final = 8


class Lease(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An address that is somebody's until a time."""

    address: str
    mac: str = ""
    """Of an IPv6 lease: empty when it is not known."""
    name: str = ""
    expires: int = 0
    """Seconds since 1970; 0: never."""
    client_id: str = ""
    """IPv4: what the guest calls itself (RFC 2132 9.14), hex with colons."""
    duid: str = ""
    """IPv6: the guest's (RFC 8415 11), hex with colons."""
    iaid: str = ""
    """IPv6: of the association, in decimal; with ``T`` before it of temporary addresses."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4


class Change(Struct, frozen=True, kw_only=True):
    """What dnsmasq told of an address: ``lease`` None means that it is free again."""

    address: str
    lease: Lease | None


def change_of(text: str) -> Change | None:
    """Return what a file of the spool says; None: it is not one of ours."""
    lines = text.split("\n")
    if len(lines) != _LINES + 1 or not lines[4].isdecimal():
        return None
    action, who, address, name, expires, client_id, iaid, mac = lines[:_LINES]
    if action == "del":
        return Change(address=address, lease=None)
    lease = Lease(address=address, mac=who, name=name, expires=int(expires), client_id=client_id)
    if ":" in address:
        lease = Lease(address=address, mac=mac, name=name, expires=int(expires), duid=who, iaid=iaid)
    return Change(address=address, lease=lease)


def server_duid(network_id: str) -> str:
    """Return how the gateway calls itself in DHCPv6 wherever it is: a DUID-UUID (RFC 6355) of the network's id."""
    digits = "0004" + network_id.replace("-", "")
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


def lease_file(leases: Iterable[Lease], duid: str) -> str:
    """Return leases in the format of dnsmasq's lease file."""
    by_address = sorted(leases, key=lambda lease: (lease.version, lease.address))
    four = [_line(lease, lease.mac, lease.client_id) for lease in by_address if lease.version == 4]
    six = [_line(lease, lease.iaid or "0", lease.duid) for lease in by_address if lease.version == 6]
    return "".join(f"{line}\n" for line in [*four, f"duid {duid}", *six])


def _line(lease: Lease, who: str, client: str) -> str:
    return f"{lease.expires} {who} {lease.address} {lease.name or '*'} {client or '*'}"


class LeaseBook:
    """The leases of networks in the cluster's records, at ``lease/<network id>/<address>``.

    Only the node that has the gateway writes them: its records need its lease, and it forgets what it knows when it gives the
    gateway away.  Calls for one network never run at the same time.
    """

    def __init__(self, records: Records) -> None:
        self._records: Final = records
        self._known: Final[dict[str, dict[str, Lease]]] = {}

    def known(self, network_id: str) -> dict[str, Lease]:
        """Return the published leases by address.  Raises PvcError without the store, unless they were read before."""
        if network_id not in self._known:
            below = self._records.below(f"lease/{network_id}")
            self._known[network_id] = {
                address: lease for address, value in below.items() if (lease := _lease_of(value)) is not None
            }
        return self._known[network_id]

    def current(self, network_id: str, directory: Directory) -> dict[str, Lease]:
        """Return the leases with those changes that are not published yet.  Raises PvcError as ``known``."""
        leases = dict(self.known(network_id))
        for place in (directory.taken, directory.spool):
            for path in _files(place):
                change = change_of(read(path))
                if change is not None:
                    _apply(leases, _with_mac(change, leases.get(change.address)))
        return leases

    def publish(self, network_id: str, directory: Directory) -> int:
        """Publish what the spool has; return how many records changed.

        Raises PvcError without the store or this node's lease: what was not published stays for the next time.
        """
        _take(directory)
        paths = _files(directory.taken)
        if not paths:
            return 0
        known = self.known(network_id)
        changed = 0
        for path in paths:
            change = change_of(read(path))
            if change is not None:
                change = _with_mac(change, known.get(change.address))
            if change is not None and known.get(change.address) != change.lease:
                self._write(network_id, change)
                _apply(known, change)
                changed += 1
            path.unlink(missing_ok=True)
        return changed

    def drop(self, network_id: str, addresses: Iterable[str]) -> None:
        """Remove leases that no longer mean anything, such as those of a prefix that the network had."""
        known = self.known(network_id)
        for address in addresses:
            change = Change(address=address, lease=None)
            self._write(network_id, change)
            _apply(known, change)

    def forget(self, network_id: str) -> None:
        """Forget what was read; the records stay."""
        self._known.pop(network_id, None)

    def _write(self, network_id: str, change: Change) -> None:
        name = f"lease/{network_id}/{change.address}"
        if change.lease is None:
            self._records.delete(name)
        else:
            self._records.put(name, msgspec.to_builtins(change.lease))


def _lease_of(value: Any) -> Lease | None:
    # What another version wrote must not keep guests from getting addresses.
    try:
        return msgspec.convert(value, Lease)
    except msgspec.ValidationError:
        return None


def _with_mac(change: Change, before: Lease | None) -> Change:
    """Return a change with the MAC address that was known: dnsmasq has none of an IPv6 lease that it began with."""
    lease = change.lease
    if lease is None or lease.mac or before is None or before.duid != lease.duid:
        return change
    return Change(address=change.address, lease=replace(lease, mac=before.mac))


def _apply(leases: dict[str, Lease], change: Change) -> None:
    if change.lease is None:
        leases.pop(change.address, None)
    else:
        leases[change.address] = change.lease


def _files(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as found:
            return sorted(Path(entry.path) for entry in found)
    except FileNotFoundError:
        return []


def _take(directory: Directory) -> None:
    # Out of the script's way: what it writes while this is published is newer, and in the spool.
    for path in _files(directory.spool):
        try:
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, directory.taken / path.name)  # noqa: PTH105  (says what it is)
        except OSError as error:
            raise DriverError(f"cannot move {path}: {error.strerror}") from error


def as_rows(leases: Iterable[Lease], nics: Iterable[NetworkNic]) -> list[dict[str, str | int]]:
    """Return leases as the answer of a query, each with the name of the VM (``vm``) whose NIC has it, if there is one."""
    vms = {nic.nic.mac.lower(): nic.vm_name for nic in nics}
    return [
        {**cast("dict[str, str | int]", msgspec.to_builtins(lease)), "vm": vms.get(lease.mac, "")} for lease in leases
    ]
