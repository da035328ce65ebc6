"""What a node's ``systemctl`` knows of a unit."""

import msgspec

from pvc_sandbox.control import Service


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A daemon under the name of its systemd unit."""

    service: Service
    reload: tuple[str, ...] = ()
    """What makes it take a changed configuration, run on the node; empty: it cannot."""
