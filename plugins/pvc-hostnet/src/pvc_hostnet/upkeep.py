"""Keeps the networks of this node as its section says, for as long as the daemon runs.

A thread of its own: the daemon asks for health only while it has a lease, and without the cluster's addresses it gets none.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Final

from pvc_core.model.errors import PvcError
from pvc_hostnet.announcements import Announced, Announcements
from pvc_hostnet.faults import Fault, faults, lacking
from pvc_hostnet.layout import Layout
from pvc_hostnet.seen import Seen, read
from pvc_hostnet.truth import Outcome, make_true, remove_floating, routes_ipv6
from pvc_netdev.links import Links

EVERY_S: Final = 5.0
_SOON_S: Final = 1.0
"""While something is missing: a device may come up a little later than the daemon."""


class Upkeep:
    """One node's networks.  Called by several threads."""

    def __init__(self, layout: Layout, log: logging.Logger) -> None:
        self.layout: Final = layout
        self._log: Final = log
        self._lock: Final = threading.Lock()
        self._held = False
        self._announcements: Final = Announcements(log)
        self._announced: dict[str, Announced] = {}
        """Network -> what the neighbours were told last: told anew when that changes."""
        self._over: Final = threading.Event()
        self._thread: threading.Thread | None = None
        self._said: list[Fault] = []

    @property
    def held(self) -> bool:
        """Whether this node is to have the floating addresses."""
        return self._held

    def start(self) -> None:
        """Make everything true now, as far as it can be, and keep it so; does nothing when that goes on already."""
        with self._lock:
            if self._thread is not None or self._over.is_set():
                return
            self._thread = threading.Thread(target=self._run, name="pvc-hostnet-upkeep", daemon=True)
        self._once()
        self._thread.start()

    def stop(self) -> None:
        """End the thread; addresses stay: guests and other daemons of the host go on."""
        self._over.set()
        self._announcements.stop()

    def look(self, *, twice: Mapping[str, str] | None = None) -> list[Fault]:
        """Make true what is not, and return what is wrong all the same; ``twice`` as in ``faults``.

        When another machine has a floating address that is ours, the neighbours are told again whose it is: that one's daemon
        may have been killed when it held it.
        """
        with self._lock:
            if twice and not twice.keys().isdisjoint(self.layout.floating):
                self._announced.clear()
            outcome = self._make_true()
            if not self._wrong(outcome, outcome.seen, twice):
                return []
            # To say what is wrong takes the names of all devices.
            with Links() as links:
                return self._wrong(outcome, read(links, self.layout, whole=True), twice)

    def acquire(self) -> list[str]:
        """Take the floating addresses and tell the neighbours; return why some are not there."""
        with self._lock:
            self._held = True
            self._announced.clear()
            outcome = self._make_true()
            return lacking(self.layout, outcome.seen, outcome.refused)

    def relinquish(self) -> None:
        """Give the floating addresses away.  Raises DriverError when the kernel keeps one."""
        with self._lock:
            self._held = False
            self._announced.clear()
            self._announcements.stop()
            remove_floating(self.layout, self._log)

    def _wrong(self, outcome: Outcome, seen: Seen, twice: Mapping[str, str] | None) -> list[Fault]:
        return faults(self.layout, seen, held=self._held, refused=outcome.refused, twice=twice or {})

    def _make_true(self) -> Outcome:
        outcome = make_true(self.layout, held=self._held, log=self._log)
        if self._held:
            self._announce(outcome.seen)
        return outcome

    def _announce(self, seen: Seen) -> None:
        """Tell the neighbours where the addresses are, if that is not what they were told last.

        So it is when an address was missing, and when a device got another MAC address, or its carrier back: the cable may lead to
        another switch now.
        """
        now: dict[str, Announced] = {}
        for network in self.layout.own:
            link = seen.links.get(network.device)
            if link is None or not link.carrier:
                continue
            here = tuple(a for a in network.floating if any(f.device == link.index for f in seen.with_address(a)))
            if here:
                router = routes_ipv6(link.name)
                now[network.name] = Announced(device=link.name, mac=link.mac, addresses=here, router=router)
        news = any(self._announced.get(name) != announced for name, announced in now.items())
        self._announced = now
        if news:
            self._announcements.begin(list(now.values()))

    def _run(self) -> None:
        while not self._over.wait(_SOON_S if self._said else EVERY_S):
            self._once()

    def _once(self) -> None:
        try:
            self._say(self.look())
        except PvcError as error:
            self._log.warning("host-networks-failed error=%s", error)
        except Exception:
            # A defect must not end what keeps this node reachable.
            self._log.exception("host-networks-defect")

    def _say(self, found: list[Fault]) -> None:
        """Log what is wrong when it is something else than before."""
        if found != self._said:
            for fault in found:
                self._log.warning("host-network-wrong network=%s reason=%s what=%s", *fault)
            if not found:
                self._log.info("host-networks-right")
        self._said = found
