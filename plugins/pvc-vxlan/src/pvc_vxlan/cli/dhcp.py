"""``pvc network dhcp``: the leases and reservations of a managed network."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Final

import click
import msgspec

from pvc_core.model.errors import AlreadyExists, InvalidRequest, NotFound, PvcError
from pvc_core.plugin.cli import Client, Column, Output, format_option, pass_client, pass_output, wait_options
from pvc_vxlan.cli import managed
from pvc_vxlan.network import Reservation

LEASES: Final = "vxlan.leases"
"""The query that nodes answer with ``LeaseRow``."""
_WHAT: Final = "DHCP"
_WAIT_S: Final = 30.0

Reservations = tuple[Reservation, ...]


class LeaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """A lease as a node tells of it."""

    address: str
    mac: str = ""
    name: str = ""
    expires: int = 0
    duid: str = ""
    vm: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Who has, or always gets, addresses of a network."""

    mac: str
    """Empty: of an IPv6 lease it is not known."""
    addresses: tuple[str, ...] = ()
    name: str = ""
    vm: str = ""
    """Name of the VM that has a NIC of this MAC address; empty: none that is known."""
    reserved: bool = False
    leased: bool = False
    expires: int | None = None
    """When the first of its leases ends, in seconds since 1970; 0: never; None: it has none."""

    @property
    def kind(self) -> str:
        """Which of both it is, for people."""
        return "+".join([*(["reservation"] if self.reserved else []), *(["lease"] if self.leased else [])])


def _when(expires: int | None) -> str:
    if expires is None:
        return "-"
    return f"{datetime.fromtimestamp(expires, UTC):%Y-%m-%dT%H:%M:%SZ}" if expires else "never"


_COLUMNS: Final = (
    Column("MAC", lambda row: row.mac or "-"),
    Column("ADDRESSES", lambda row: ",".join(row.addresses) or "-"),
    Column("NAME", lambda row: row.name or "-"),
    Column("VM", lambda row: row.vm or "-"),
    Column("EXPIRES", lambda row: _when(row.expires)),
    Column("KIND", lambda row: row.kind),
)


def rows_of(leases: Iterable[LeaseRow], reservations: Reservations) -> list[Row]:
    """Return one row for each MAC address; leases whose MAC address is not known are by the guest's DUID."""
    found: dict[str, Row] = {
        reservation.mac.lower(): Row(
            mac=reservation.mac.lower(),
            addresses=tuple(address for address in (reservation.address, reservation.address6) if address),
            name=reservation.name,
            reserved=True,
        )
        for reservation in reservations
    }
    for lease in leases:
        key = lease.mac or lease.duid or lease.address
        before = found.get(key, Row(mac=lease.mac))
        ends = [end for end in (before.expires, lease.expires) if end]
        found[key] = Row(
            mac=before.mac,
            addresses=_sorted({*before.addresses, lease.address}),
            name=before.name or lease.name,
            vm=before.vm or lease.vm,
            reserved=before.reserved,
            leased=True,
            expires=min(ends, default=0),
        )
    return sorted(found.values(), key=lambda row: (not row.reserved, row.mac, row.addresses))


@click.group("dhcp")
def dhcp() -> None:
    """Look at who has which address of a network, and say who always gets which.

    Addresses that a NIC was given with the VM (`pvc vm nic add --address`) need no reservation.
    """


@dhcp.command("list")
@click.argument("network")
@format_option
@pass_output
@pass_client
def list_(client: Client, out: Output, /, network: str) -> None:
    """List the leases and reservations of NETWORK."""
    found = managed.read(client, network, _WHAT)
    leases: list[LeaseRow] = []
    try:
        leases = msgspec.convert(client.ask(LEASES, network=found.id), list[LeaseRow])
    except (PvcError, msgspec.ValidationError) as error:
        managed.note_unknown(out, "leases", error)
    out.listing(
        rows_of(leases, found.parameters.reservations),
        _COLUMNS,
        empty=f"network {found.name} has no leases and no reservations",
    )


@dhcp.command()
@click.argument("network")
@click.argument("mac")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@click.option("--name", default="", help="Host name in the network's domain [what the guest or its VM is called].")
@click.option("--replace", is_flag=True, help="Instead of the reservation that MAC has.")
@wait_options(_WAIT_S)
@format_option
@pass_output
@pass_client
def add(
    client: Client,
    out: Output,
    /,
    network: str,
    mac: str,
    addresses: tuple[str, ...],
    name: str,
    replace: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Give MAC the same ADDRESSes of NETWORK always: an IPv4 one, an IPv6 one, or both.

    Without an ADDRESS it only has a name.  A guest that runs gets them when it renews its lease.
    """
    if not addresses and not name:
        raise click.UsageError("nothing to reserve: give an ADDRESS or --name")
    made = Reservation(mac=_mac(mac), name=name, **_by_version(addresses))

    def added(now: Reservations) -> Reservations:
        others = tuple(one for one in now if one.mac.lower() != made.mac)
        if len(others) < len(now) and not replace:
            raise AlreadyExists(f"network {network} has a reservation for {made.mac} already: change it by --replace")
        return (*others, made)

    found = managed.change(client, network, _WHAT, "reservations", added)
    managed.settle(client, out, found, wait=wait, timeout=timeout)
    what = ", ".join([*addresses, *([f"the name {name}"] if name else [])])
    out.done(f"{made.mac} gets {what} in network {found.name}", mac=made.mac, network=found.name)


@dhcp.command()
@click.argument("network")
@click.argument("which", nargs=-1, required=True, metavar="MAC|ADDRESS|NAME...")
@wait_options(_WAIT_S)
@format_option
@pass_output
@pass_client
def remove(client: Client, out: Output, /, network: str, which: tuple[str, ...], wait: bool, timeout: float) -> None:
    """Remove reservations of NETWORK.

    A guest keeps its address until it renews its lease.
    """
    removed: list[str] = []

    def left(now: Reservations) -> Reservations:
        wanted = [_named(network, now, word) for word in which]
        removed[:] = [reservation.mac for reservation in wanted]
        return tuple(reservation for reservation in now if reservation not in wanted)

    found = managed.change(client, network, _WHAT, "reservations", left)
    managed.settle(client, out, found, wait=wait, timeout=timeout)
    several = "reservations are" if len(removed) > 1 else "reservation is"
    out.done(
        f"{several} removed from network {found.name}: {', '.join(removed)}", macs=list(removed), network=found.name
    )


def _mac(text: str) -> str:
    return text.lower().replace("-", ":")


def _by_version(addresses: Sequence[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for text in addresses:
        try:
            address = ip_address(text)
        except ValueError:
            raise InvalidRequest(f"{text!r} is no IP address") from None
        field = "address" if address.version == 4 else "address6"
        if field in fields:
            raise InvalidRequest(
                f"a reservation has one IPv{address.version} address, not {fields[field]} and {address}"
            )
        fields[field] = str(address)
    return fields


def _named(network: str, reservations: Reservations, word: str) -> Reservation:
    """Return the reservation that is meant; raises NotFound."""
    for one in reservations:
        if _mac(word) == one.mac.lower() or word in (one.address, one.address6, one.name):
            return one
    there = ", ".join(one.mac for one in reservations) or "none"
    raise NotFound(f"network {network} has no reservation {word}; it has: {there}")


def _sorted(addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(addresses, key=lambda text: (":" in text, ip_address(text).packed)))
