"""Whether FRR does on this node what it should, and bringing it back when it does not.

A node whose bgpd is gone is cut off from the overlay while its guests run, so this is asked for every two seconds or
so; when all is well it is one call of vtysh.
"""

import logging
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from msgspec import Struct

from pvc_core.model.base import Condition
from pvc_core.plugin import ConfigError, DriverError
from pvc_vxlan.evpn.frr import Frr, View
from pvc_vxlan.evpn.render import Fabric
from pvc_vxlan.evpn.state import Session, sessions

ROUTING: Final = "Routing"
"""Condition: FRR runs and has our configuration."""
FABRIC: Final = "Fabric"
"""Condition: the sessions with the route reflectors."""
UPSTREAM: Final = "Upstream"
"""Condition: the sessions with routers outside; only where there are any."""
CUT_OFF: Final = "CutOff"
"""Reason of ``Fabric``: no session with any reflector is up."""
DEGRADED: Final = "Degraded"
_WATCHFRR_S: Final = 2.0
"""For so long watchfrr, which runs in the unit, may bring a daemon back before the unit is restarted.

watchfrr 8.4 takes the interval of its ``-i`` (5 s), and does so once a minute (``-m``); a node is not cut off for so
long, and a restart of the unit costs the overlay nothing that is not down with bgpd. With ``-i 1`` in
``watchfrr_options`` it is first.
"""
_RESTART_EVERY_S: Final = 30.0
_AGAIN_S: Final = 30.0
"""Between attempts to apply a configuration that FRR refuses."""
_READY_S: Final = 10.0


class Report(Struct, frozen=True, kw_only=True):
    """What was found, after what was done about it."""

    conditions: tuple[Condition, ...]
    done: tuple[str, ...] = ()
    """What was mended, for the log."""
    sessions: tuple[Session, ...] = ()


def health(view: View, fabric: Fabric, *, differs: bool, trouble: str = "") -> list[Condition]:
    """Return the conditions for what was seen of FRR; ``trouble`` is why it could not be mended."""
    if not view.whole:
        said = f"FRR does not run as it should: {view.problem}" + (f"; {trouble}" if trouble else "")
        reason = "NotAnswering" if view.hangs else "NotRunning"
        cut_off = [_cut_off("FRR does not run")] if fabric.evpn else []
        return [Condition(type=ROUTING, ok=False, reason=reason, message=said), *cut_off]
    found = sessions(view.summary)
    if trouble:
        routing = Condition(type=ROUTING, ok=False, reason="Refused", message=trouble)
    elif differs:
        lost = "FRR does not have the cluster's configuration"
        routing = Condition(type=ROUTING, ok=False, reason="ConfigurationLost", message=lost)
    else:
        routing = Condition(type=ROUTING, ok=True)
    conditions = [routing, _fabric(fabric, found)] if fabric.evpn else [routing]
    if fabric.upstream:
        down = _down(found, [router.address for router in fabric.upstream], ("ipv4Unicast", "ipv6Unicast"))
        message = f"no BGP session with {', '.join(down)} outside" if down else ""
        reason = "SessionDown" if down else ""
        conditions.append(Condition(type=UPSTREAM, ok=not down, reason=reason, message=message))
    return conditions


def _fabric(fabric: Fabric, found: list[Session]) -> Condition:
    local = ip_address(fabric.local)
    others = [peer for peer in fabric.reflectors if ip_address(peer.address) != local]
    down = _down(found, [peer.address for peer in others], ("l2VpnEvpn",))
    if not down:
        return Condition(type=FABRIC, ok=True)
    names = ", ".join(peer.name for peer in others if peer.address in down)
    said = f"no BGP session with the route reflector{'s' * (len(down) > 1)} {names}"
    # A reflector alone still has its clients.
    alone = len(down) == len(others) and not (fabric.is_reflector and any(s.dynamic and s.up for s in found))
    return _cut_off(said) if alone else Condition(type=FABRIC, ok=False, reason=DEGRADED, message=said)


def _cut_off(why: str) -> Condition:
    message = f"{why}: guests on this node do not reach those on others"
    return Condition(type=FABRIC, ok=False, reason=CUT_OFF, message=message)


def _down(found: list[Session], addresses: list[str], families: tuple[str, ...]) -> list[str]:
    up = {session.peer for session in found if session.up and session.family in families}
    return [address for address in addresses if str(ip_address(address)) not in up]


class Watch:
    """Looks after FRR; one thread calls it."""

    def __init__(self, frr: Frr, log: logging.Logger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._frr: Final = frr
        self._log: Final = log
        self._clock: Final = clock
        self._missing_since: float | None = None
        self._restarted = -_RESTART_EVERY_S
        self._refused: tuple[Fabric, str, float, str] | None = None
        """Of the last attempt that FRR refused: what was wanted, what ran, when, and why."""

    def tend(self, fabric: Fabric) -> Report:
        """Look, mend what is wrong, and return what is so then.  Takes some 10 s at most when FRR must be started."""
        view = self._frr.view()
        done: list[str] = []
        trouble = ""
        try:
            if view.whole and not self._frr.differs(fabric, view.running):
                self._missing_since = self._refused = None
                return _report(view, fabric, differs=False)
            self.mend(fabric, view, done)
        except (DriverError, ConfigError) as error:
            trouble = str(error)
        if done:
            self._log.warning("FRR: %s", "; ".join(done))
            view = self._frr.view()
        differs = not trouble and view.whole and self._frr.differs(fabric, view.running)
        return _report(view, fabric, differs=differs, trouble=trouble, done=tuple(done))

    def mend(self, fabric: Fabric, view: View, done: list[str]) -> None:
        """Start FRR when it does not run, and give it our configuration when it has it not; adds to ``done`` what it
        did.

        Raises DriverError when that fails.
        """
        if not view.whole:
            if not self._revive(view, done):
                return
            view = self._frr.answering(within_s=_READY_S)
            self._missing_since = None
        self._apply(fabric, view, done)

    def _revive(self, view: View, done: list[str]) -> bool:
        now = self._clock()
        if self._missing_since is None:
            self._missing_since = now
        if not self._frr.active():
            self._frr.start()
            done.append(f"started it ({view.problem})")
            return True
        if now - self._missing_since < _WATCHFRR_S or now - self._restarted < _RESTART_EVERY_S:
            return False
        self._restarted = now
        self._frr.start(anew=True)
        done.append(f"restarted it ({view.problem})")
        return True

    def _apply(self, fabric: Fabric, view: View, done: list[str]) -> None:
        if self._refused:
            wanted, ran, when, why = self._refused
            if (wanted, ran) == (fabric, view.running) and self._clock() - when < _AGAIN_S:
                raise DriverError(why, retryable=False)
        try:
            if self._frr.apply(fabric):
                done.append("gave it the cluster's configuration again")
        except DriverError as error:
            self._refused = (fabric, view.running, self._clock(), str(error))
            raise
        self._refused = None


def _report(view: View, fabric: Fabric, *, differs: bool, trouble: str = "", done: tuple[str, ...] = ()) -> Report:
    return Report(
        conditions=tuple(health(view, fabric, differs=differs, trouble=trouble)),
        done=done,
        sessions=tuple(sessions(view.summary)),
    )
