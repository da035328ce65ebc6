"""Makes the kernel as the layout says: looks, decides, does, and looks again."""

import logging
from pathlib import Path
from typing import Final

import msgspec

from pvc_core.plugin import DriverError
from pvc_hostnet.layout import Layout
from pvc_hostnet.seen import Seen, read, version_of
from pvc_hostnet.steps import (
    ANYWHERE,
    FLOATING,
    OWN,
    AddAddress,
    AddRoute,
    RemoveAddress,
    RemoveRoute,
    SetMtu,
    Step,
    SwitchOn,
    steps,
)
from pvc_netdev import sysctl
from pvc_netdev.links import Links

_ROUNDS: Final = 3
"""What one round changes may take something along (a device that comes up loses IPv6 addresses): it is added in the next."""
_CONF: Final = Path("/proc/sys/net/ipv6/conf")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How the kernel is after it was made as the layout says."""

    seen: Seen
    done: tuple[Step, ...] = ()
    """What was changed."""
    refused: dict[str, str] = {}
    """Network -> what the kernel said to a change that it did not make."""


def make_true(layout: Layout, *, held: bool, log: logging.Logger, whole: bool = False) -> Outcome:
    """Change what is not as the layout says; each change is tried, also when one before it was refused.

    ``held``: this node is to have the floating addresses; ``whole``: look at all devices.
    """
    done: list[Step] = []
    refused: dict[str, str] = {}
    before: list[Step] = []
    with Links() as links:
        for _ in range(_ROUNDS):
            seen = read(links, layout, whole=whole)
            todo = steps(layout, seen, held=held)
            if not todo or todo == before:
                break
            before, refused = todo, {}
            for step in todo:
                try:
                    _do(links, step)
                except DriverError as error:
                    refused.setdefault(step.network, str(error))
                else:
                    done.append(step)
                    log.info("host-network-changed %s", told(step, seen))
        else:
            seen = read(links, layout, whole=whole)
    return Outcome(seen=seen, done=tuple(done), refused=refused)


def remove_floating(layout: Layout, log: logging.Logger) -> None:
    """Take the floating addresses from whatever device has them, whoever gave them: another node has them next.

    Raises DriverError, after it has tried all, when one could not be removed.
    """
    wanted = set(layout.floating)
    failed = []
    with Links() as links:
        found = [a for a in links.assigned() if a.protocol == FLOATING or a.address.partition("/")[0] in wanted]
        devices = {link.index: link for network in layout.own if (link := links.get(network.device)) is not None}
        if any(address.device not in devices for address in found):
            # Rarely: on a host with hundreds of devices this takes longer than all else, and neighbours wait for it.
            devices = {link.index: link for link in links.all()}
        for address in found:
            link = devices.get(address.device)
            if link is None:
                continue
            try:
                keep_others(link.name, address.address)
                if links.remove_address(link, address.address):
                    log.info("floating-address-removed device=%s address=%s", link.name, address.address)
            except DriverError as error:
                failed.append(str(error))
    if failed:
        raise DriverError("; ".join(failed))


def keep_others(device: str, address: str) -> None:
    """Have the other IPv4 addresses of a prefix survive the removal of its first: the kernel's default is that they do not.

    Source: ``promote_secondaries`` in the kernel's Documentation/networking/ip-sysctl.rst.
    """
    if version_of(address) == 4:
        sysctl.write(f"ipv4/conf/{device}/promote_secondaries", "1")


def told(step: Step, seen: Seen) -> str:
    """Return a change for the log."""
    match step:
        case SetMtu():
            return f"device={step.link.name} mtu={step.mtu} was={step.link.mtu}"
        case SwitchOn():
            return f"device={step.link.name} state=up"
        case RemoveAddress():
            return f"device={seen.name_of(step.address.device)} removed={step.address.address}"
        case AddAddress():
            return f"device={step.link.name} added={step.address} floating={'yes' if step.floating else 'no'}"
        case RemoveRoute():
            return f"route={ANYWHERE[step.version]} removed"
        case AddRoute():
            return f"device={step.link.name} route={ANYWHERE[version_of(step.via)]} via={step.via}"


def _do(links: Links, step: Step) -> None:
    match step:
        case SetMtu():
            links.set(step.link, f"setting MTU {step.mtu}", mtu=step.mtu)
        case SwitchOn():
            links.set(step.link, "switching on", state="up")
        case RemoveAddress():
            link = next((one for one in links.all() if one.index == step.address.device), None)
            if link is not None:
                keep_others(link.name, step.address.address)
                links.remove_address(link, step.address.address)
        case AddAddress():
            _check_ipv6(step)
            mark = FLOATING if step.floating else OWN
            # A floating address is never the source of what this host itself begins: it may be gone the next moment.
            links.add_address(step.link, step.address, protocol=mark, deprecated=step.floating)
        case RemoveRoute():
            links.remove_route(ANYWHERE[step.version], protocol=OWN)
        case AddRoute():
            links.set_route(ANYWHERE[version_of(step.via)], step.link, via=step.via, protocol=OWN)


def _check_ipv6(step: AddAddress) -> None:
    if version_of(step.address) == 6 and _is_set(_CONF / step.link.name / "disable_ipv6"):
        raise DriverError(
            f"{step.link.name} cannot get {step.address}: IPv6 is switched off there "
            f"(net.ipv6.conf.{step.link.name}.disable_ipv6 is 1)"
        )


def routes_ipv6(device: str) -> bool:
    """Return whether the host forwards IPv6 from a device, which it must say in what it advertises (RFC 4861, 7.2.4)."""
    return _is_set(_CONF / device / "forwarding")


def _is_set(path: Path) -> bool:
    try:
        return path.read_text().strip() == "1"
    except FileNotFoundError:
        return False
