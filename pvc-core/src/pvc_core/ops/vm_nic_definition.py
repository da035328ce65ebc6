"""NICs as people write them, and their conversion to and from what a spec has."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from pvc_core.model.base import Value
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import check_mac, did_you_mean
from pvc_core.model.units import parse_bytes
from pvc_core.model.vm import NO_NIC_LIMITS, Nic, NicLimits, NicModel

LIMITS: Final = NicLimits.__struct_fields__
"""Names of the limits that a NIC may have."""


class NicLimitsDefinition(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Most that a NIC carries, as ``model.vm.NicLimits``: in KiB/s, or as ``10M``."""

    in_average: int | str = 0
    in_peak: int | str = 0
    in_burst: int | str = 0
    out_average: int | str = 0
    out_peak: int | str = 0
    out_burst: int | str = 0


class NicDefinition(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network card; without ``mac`` it gets one that no other VM of the cluster has."""

    network: str
    mac: str = ""
    model: NicModel = "virtio"
    link_up: bool = True
    queues: Annotated[int, Meta(ge=1, le=256)] = 1
    limits: NicLimitsDefinition = NicLimitsDefinition()
    addresses: tuple[str, ...] = ()
    """IP addresses that are its own, without prefix lengths."""
    parameters: dict[str, str] = {}


def nics(definitions: tuple[NicDefinition, ...], macs: Iterator[str]) -> tuple[Nic, ...]:
    """Return the NICs; those without a MAC address get the next one of ``macs``.  Raises InvalidRequest when one is there twice."""
    given = [check_mac(nic.mac) if nic.mac else "" for nic in definitions]
    taken: set[str] = set()
    for mac in given:
        if mac in taken:
            raise InvalidRequest(f"MAC address {mac} is given twice")
        if mac:
            taken.add(mac)
    result: list[Nic] = []
    for nic, mac in zip(definitions, given, strict=True):
        chosen = mac or next(free for free in macs if free not in taken)
        taken.add(chosen)
        result.append(_nic(nic, chosen))
    _check_addresses(result)
    return tuple(result)


def nic_definition(nic: Nic) -> NicDefinition:
    """Return the definition that makes this NIC again."""
    fields = {field: getattr(nic, field) for field in NicDefinition.__struct_fields__ if field != "limits"}
    return NicDefinition(**fields, limits=NicLimitsDefinition(**asdict(nic.limits)))


def check_limit_names(given: Iterable[str]) -> None:
    """Raise InvalidRequest for a limit that a NIC does not have."""
    unknown = next((name for name in given if name not in LIMITS), None)
    if unknown is not None:
        raise InvalidRequest(
            f"a NIC has no limit {unknown!r}{did_you_mean(unknown, LIMITS)}; limits are {', '.join(LIMITS)}"
        )


def nic_limits(given: Mapping[str, int | str], what: str) -> NicLimits:
    """Return limits by their names, in KiB/s or as ``10M``; raises InvalidRequest."""
    rates = {name: _kib(rate, f"{what}: limit {name}") for name, rate in given.items()}
    try:
        limits = msgspec.convert(rates, NicLimits)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{what}: limits: {error}") from error
    problem = limits.problem()
    if problem:
        raise InvalidRequest(f"{what}: {problem}")
    # The one object: by its identity it is known as the default, and left out where it is stored.
    return NO_NIC_LIMITS if limits == NO_NIC_LIMITS else limits


def check_nic_settings(nic: Nic, vcpus: int) -> None:
    """Check what a NIC of a VM with so many vCPUs is to be like; raises InvalidRequest."""
    if nic.queues == 1:
        return
    if nic.model != "virtio":
        raise InvalidRequest(f"{nic.title} has model {nic.model}: only virtio has more than one queue")
    if nic.queues > vcpus:
        raise InvalidRequest(f"{nic.title} has {nic.queues} queues, more than the VM has vCPUs ({vcpus})")


def addresses(given: Iterable[str], what: str) -> tuple[str, ...]:
    """Return IP addresses as they are usually written; raises InvalidRequest."""
    result: list[str] = []
    for text in given:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise InvalidRequest(
                f"{what}: {text!r} is not an IP address; write it without a prefix length, like 10.1.0.5 or 2001:db8::5"
            ) from None
        if address.is_multicast or address.is_unspecified or address.is_loopback:
            raise InvalidRequest(f"{what}: {text} is an address that no NIC can have for itself")
        if str(address) in result:
            raise InvalidRequest(f"{what}: address {address} is given twice")
        result.append(str(address))
    return tuple(result)


def _kib(rate: int | str, what: str) -> int:
    if isinstance(rate, int):
        return rate
    return int(rate) if rate.isdecimal() else -(-parse_bytes(rate, what) // 1024)


def _nic(definition: NicDefinition, mac: str) -> Nic:
    what = f"NIC {mac} in network {definition.network}"
    fields = asdict(definition) | {
        "mac": mac,
        "limits": nic_limits(asdict(definition.limits), what),
        "addresses": addresses(definition.addresses, what),
    }
    return Nic(**fields)


def _check_addresses(nics_: Iterable[Nic]) -> None:
    """Refuse an address that two NICs in one network have."""
    seen: dict[tuple[str, str], Nic] = {}
    for nic in nics_:
        for address in nic.addresses:
            other = seen.setdefault((nic.network, address), nic)
            if other is not nic:
                raise InvalidRequest(f"{nic.title} has address {address}, which is that of {other.title}")
