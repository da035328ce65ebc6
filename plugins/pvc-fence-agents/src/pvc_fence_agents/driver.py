"""The fence driver ``agent``: runs a fence agent, and believes only what it read back."""

import time
from typing import Final

from pvc_core.plugin import (
    Context,
    DeadlineExceeded,
    DriverError,
    FenceDriver,
    FenceTarget,
    NotReady,
    PowerState,
    Run,
)
from pvc_fence_agents import outcome
from pvc_fence_agents.agents import Agents
from pvc_fence_agents.config import FenceAgentsConfig
from pvc_fence_agents.parameters import agent_name
from pvc_fence_agents.request import Request, request

_POLL_S: Final = 1.0
"""Pause between two readings; an agent logs in anew for each."""
_TO_READ_BACK: Final = 1 / 3
"""Part of the time left that an agent which switches may not use up."""


class AgentDriver(FenceDriver):
    """Power switched by fence agents.  Keeps nothing of a device: may be used from any thread."""

    def __init__(self, context: Context, config: FenceAgentsConfig) -> None:
        self._run: Final = context.run
        self._config: Final = config
        self._agents: Final = Agents(config.directory, config.believed, context.run)

    def fence_preflight(self) -> bool:
        if not self._agents.names():
            raise NotReady(f"there is no fence agent in {self._config.directory}: install fence-agents")
        return True

    def power_status(self, target: FenceTarget) -> PowerState:
        end = time.monotonic() + self._config.status_timeout
        return self._call(target).status(self._reading_s(end))

    def power_off(self, target: FenceTarget) -> PowerState:
        return self._switch(target, PowerState.OFF)

    def power_on(self, target: FenceTarget) -> PowerState:
        return self._switch(target, PowerState.ON)

    def _switch(self, target: FenceTarget, wanted: PowerState) -> PowerState:
        """Command the power unless it is as wanted, then read it until it is; raises DriverError when it never is."""
        end = time.monotonic() + self._config.power_timeout
        call = self._call(target)
        if self._read(call, wanted, end) is wanted:
            return wanted
        error = call.switch(wanted, (end - time.monotonic()) * (1 - _TO_READ_BACK))
        read = "it was not read"
        while (left := end - time.monotonic()) > 0:
            try:
                state = self._read(call, wanted, end)
            except DriverError as unread:
                read = str(unread)
            else:
                if state is wanted:
                    return wanted
                read = f"it reads {state.value}"
            if error is not None and not isinstance(error, DeadlineExceeded):
                raise error
            time.sleep(min(_POLL_S, left))
        also = "" if error is None else f" ({error})"
        raise DriverError(
            f"{call.agent} switched the power {wanted.value}, but {self._config.power_timeout:g} s later {read}{also}"
        )

    def _read(self, call: "_Call", wanted: PowerState, end: float) -> PowerState:
        """Read the power; when it is to be off, it is off when that was read twice in a row.

        Some agents call everything off that they do not understand, such as an answer that was cut short.
        """
        state = call.status(self._reading_s(end))
        return call.status(self._reading_s(end)) if state is wanted is PowerState.OFF else state

    def _reading_s(self, end: float) -> float:
        return min(self._config.status_timeout, max(0.0, end - time.monotonic()))

    def _call(self, target: FenceTarget) -> "_Call":
        name = agent_name(target.parameters)
        return _Call(name, self._agents.path(name), request(self._agents.get(name), target.parameters), self._run)


class _Call:
    """An agent and what it is told of one device: made for one call of the driver, as it holds secrets."""

    __slots__ = ("_masked", "_path", "_request", "_run", "agent")

    def __init__(self, agent: str, path: str, made: Request, run: Run) -> None:
        self.agent: Final = agent
        self._path: Final = path
        self._request: Final = made
        self._run: Final = run
        self._masked: Final = outcome.mask(made.secrets)

    def status(self, deadline_s: float) -> PowerState:
        """Read the power; raises DriverError when the agent could not, or made no sense."""
        try:
            done = self._run([self._path], deadline_s=deadline_s, stdin=self._request.stdin("status"))
        except DeadlineExceeded:
            raise NotReady(f"{self.agent} got no answer from its device in {deadline_s:.2g} s and was killed") from None
        return outcome.state(self.agent, done, self._masked)

    def switch(self, wanted: PowerState, deadline_s: float) -> DriverError | None:
        """Command the power; returns what went wrong, DeadlineExceeded when it may take effect all the same."""
        try:
            done = self._run([self._path], deadline_s=deadline_s, stdin=self._request.stdin(wanted.value))
        except DeadlineExceeded:
            return DeadlineExceeded(f"{self.agent} was killed after {deadline_s:.2g} s")
        return outcome.failure(self.agent, done, self._masked) if done.returncode else None
