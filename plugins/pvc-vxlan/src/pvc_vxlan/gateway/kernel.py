"""What a gateway needs of netlink beside ``pvc_netdev.links``."""

import contextlib
import errno
from typing import Final

from pyroute2 import IPRoute, NetlinkError

from pvc_core.plugin import DriverError
from pvc_netdev.links import Link
from pvc_netdev.namespace import entered

_PREFIX_LENGTH: Final = 30
_LINK_SCOPE: Final = 253
"""RT_SCOPE_LINK of ``linux/rtnetlink.h``."""


def give_link_address(link: Link, address: str, namespace: str = "") -> None:
    """Give a device of the calling thread's namespace, or of a named one, an address of /30 that is only a next hop.

    Of link scope, so no packet that goes further has it as its source; otherwise a gateway would ask outside for names with it,
    and no answer could come back.  It has it already is success.

    Not of /32: the reverse path filter drops ARP requests from an address to which there is no way.  Not one with a peer either:
    the kernel holds such an address to be none of the device's when arp_ignore is 1 (seen with 6.18).
    """
    with entered(namespace) if namespace else contextlib.nullcontext(), IPRoute() as ip:
        try:
            ip.addr("add", index=link.index, address=address, prefixlen=_PREFIX_LENGTH, scope=_LINK_SCOPE)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise DriverError(
                    f"giving {link.name} the address {address}: the kernel refused it: {error.args[-1]}"
                ) from error


def delete_group(group: int) -> None:
    """Remove all devices of a group in one request; none is success.

    The kernel waits for its readers once (``net/core/rtnetlink.c``, rtnl_group_dellink), which takes most of a removal's time.
    """
    with IPRoute() as ip:
        try:
            ip.link("del", group=group)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise DriverError(
                    f"removing the devices of group {group}: the kernel refused it: {error.args[-1]}"
                ) from error
