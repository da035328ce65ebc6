"""The fence driver of one simulated coordinator: it takes virtual time, and the power really changes."""

import random
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from pvc_core.plugin.errors import AuthFailed, DriverError, NotReady
from pvc_core.plugin.specs.fencing import FenceDriver, FenceTarget, PowerState
from pvc_core.testkit.simulator.power import Controller, Mode

NAME = "sim"
"""The driver's name; its one parameter is ``device``."""


class Caller(Protocol):
    """The daemon that makes the calls."""

    @property
    def on_request(self) -> bool:
        """An operator asked for this call."""

    def pause(self, seconds: float) -> None:
        """Let virtual time pass for the calling thread; it does not return if the daemon is dead by then."""

    def send(self, delay_s: float, effect: Callable[[], None]) -> None:
        """Have something happen elsewhere that was asked for over the network, perhaps also if the daemon is dead by then."""

    def effect(self, where: str) -> None:
        """Mark a point at which the daemon may die or be stopped."""


class Site(NamedTuple):
    """All power controllers, and who wants to know of their use."""

    controllers: Mapping[tuple[str, str], Controller]
    """By node and device."""
    rng: random.Random
    fencing: Callable[[str, str, bool], None]
    """Told of each call that will switch a node off, when it begins: node, coordinator, on request."""
    switched: Callable[[str], None]
    """Told of a node whose power a device is about to cut, and with an empty string when it has."""


class SimFence(FenceDriver):
    """As patient as a good driver: it polls until the power is as wanted, for 25 s at the most."""

    def __init__(self, site: Site, me: str, caller: Caller) -> None:
        self._site = site
        self._me = me
        self._caller = caller

    def fence_preflight(self) -> bool:
        return True

    def fence_close(self) -> bool:
        return True

    def power_status(self, target: FenceTarget) -> PowerState:
        return self._connect(target).read()

    def power_off(self, target: FenceTarget) -> PowerState:
        self._site.fencing(target.node, self._me, self._caller.on_request)
        self._caller.effect(f"before power-off {target.node}")
        state = self._switch(target, PowerState.OFF)
        self._caller.effect(f"after power-off {target.node}")
        return state

    def power_on(self, target: FenceTarget) -> PowerState:
        return self._switch(target, PowerState.ON)

    def _connect(self, target: FenceTarget) -> Controller:
        controller = self._site.controllers[target.node, target.parameters["device"]]
        self._caller.pause(self._site.rng.uniform(0.02, 0.3))
        if not controller.answers():
            self._caller.pause(5.0)
            raise NotReady(f"the {controller.device} of node {target.node} does not answer")
        if self._me in controller.wrong_password:
            raise AuthFailed(f"the {controller.device} of node {target.node} refuses the password")
        return controller

    def _switch(self, target: FenceTarget, wanted: PowerState) -> PowerState:
        rng, caller = self._site.rng, self._caller
        controller = self._connect(target)
        mode = controller.mode
        if controller.read() is wanted:
            return wanted
        works = mode in (Mode.OK, Mode.SLOW) or (mode is Mode.GARBAGE and rng.random() < 0.5)
        takes = rng.uniform(10.0, 20.0) if mode is Mode.SLOW else rng.uniform(0.1, 1.5)

        def switch() -> None:
            self._site.switched(target.node if wanted is PowerState.OFF else "")
            controller.switch(wanted)
            self._site.switched("")

        if works:
            caller.send(takes, switch)
        caller.pause(takes + rng.uniform(0.02, 0.5))
        if not controller.answers():
            raise NotReady(f"the {controller.device} of node {target.node} does not answer any more")
        state = controller.read()
        if state is not wanted and state is not PowerState.UNKNOWN:
            caller.pause(25.0 - takes)
            state = controller.read()
            if state is not wanted and rng.random() < 0.5:
                raise DriverError(
                    f"the {controller.device} of node {target.node} accepted {wanted}, and still is {state}"
                )
        return state
