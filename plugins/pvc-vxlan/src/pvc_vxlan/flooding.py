"""Keeps tunnels flooding to all nodes of the cluster, whatever EVPN says: traffic goes on while FRR does not.

FRR 8.4 has no graceful restart for EVPN: when bgpd of a node ends, zebra there forgets all other nodes, and they forget that node, at once.
Its guests would be cut off until BGP has converged again.  Frames to a MAC address without an entry are copied to every end
of a tunnel in the device's list; so that list is kept whole by us, from the cluster's record, and all that is missing meanwhile
are the entries that spare the copies.  What zebra takes from the list is put back within milliseconds, as the kernel tells of it.
"""

import asyncio
import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Collection
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.rtnl import RTMGRP_NEIGH

from pvc_core.plugin import DriverError
from pvc_netdev.links import EVERYBODY, Links
from pvc_vxlan import names

_START_S: Final = 5.0
_STOP_S: Final = 2.0


class Flooding:
    """Puts back what is taken from the lists of our tunnels.  ``wanted`` returns the addresses that belong there."""

    def __init__(self, wanted: Callable[[], Collection[str]], log: logging.Logger) -> None:
        self._wanted: Final = wanted
        self._log: Final = log
        self._listening: Final = threading.Event()
        self._thread: threading.Thread | None = None
        self._end: Callable[[], object] | None = None

    def start(self) -> None:
        """Begin to listen to the kernel, of the namespace that the calling thread is in; once begun it goes on."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="vxlan-flooding", daemon=True)
            self._thread.start()
            self._listening.wait(_START_S)

    def stop(self) -> None:
        """End; may be called twice."""
        if self._thread is not None and self._end is not None:
            self._end()
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._listen())

    async def _listen(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def end() -> None:
            with contextlib.suppress(RuntimeError):  # it has ended already
                loop.call_soon_threadsafe(task.cancel)

        self._end = end
        async with AsyncIPRoute() as heard:
            await heard.bind(groups=RTMGRP_NEIGH)
            self._listening.set()
            while True:
                try:
                    gone = {place async for message in heard.get() if (place := _taken(message)) is not None}
                except OSError as error:
                    # More was told than fits the socket: what was missed is put back when the networks are looked at again.
                    if error.errno != errno.ENOBUFS:
                        raise
                    self._log.warning("flooding-messages-missed")
                    continue
                if gone:
                    await asyncio.to_thread(self._put_back, gone)

    def _put_back(self, gone: Collection[tuple[int, str]]) -> None:
        belongs = set(self._wanted())
        try:
            with Links() as links:
                for index, address in sorted(gone):
                    device = links.at(index) if address in belongs else None
                    if device is not None and device.kind == "vxlan" and device.alias.startswith(f"{names.OWNER}:"):
                        links.add_flood(device, address)
                        self._log.info("flooding-restored device=%s to=%s", device.name, address)
        except DriverError as error:
            self._log.warning("flooding-not-restored error=%s", error)


def _taken(message: Any) -> tuple[int, str] | None:
    """Return device and address of which a message says that a device copies frames there no more."""
    if message["event"] != "RTM_DELNEIGH" or message.get_attr("NDA_LLADDR") != EVERYBODY:
        return None
    address = message.get_attr("NDA_DST")
    return (message["ifindex"], str(address)) if address else None
