"""One object of a plugin, supervised: every call into it passes here.

A call runs in one of the unit's bulkheads under a deadline; what it returns is checked against the
specification; what it raises is mapped to DriverError with the plugin's and the hook's name; all of it
is counted.  Thread-safe.
"""

import logging
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, cast

from pvc_core.model.errors import InvalidRequest, PvcError
from pvc_core.plugin.errors import (
    DeadlineExceeded,
    DriverError,
    ObjectBusy,
    ObjectExists,
    ObjectMissing,
    PluginContractError,
    Unsupported,
)
from pvc_core.plugin.specs.storage import Cancelled
from pvc_core.runtime.bulkhead import THREADS, Bulkhead, Outcome, Pending
from pvc_core.runtime.contract import mismatch, text_of
from pvc_core.runtime.hooks import SLOW_S, Hook, Lane, deadline_of
from pvc_core.runtime.manifests import describe
from pvc_core.runtime.trace import redacted, redacted_arguments

T = TypeVar("T")
log = logging.getLogger(__name__)
trace_log = logging.getLogger("pvc.trace")

_ANSWERS: Final = (Unsupported, ObjectMissing, ObjectExists, ObjectBusy, InvalidRequest)
"""Errors that say something about the object asked for, or about the request, not about the health of the plugin."""
_ILL_AFTER: Final = 3
_FINGERPRINTS_MAX: Final = 200
_FENCE_THREADS: Final = 2


class Call(NamedTuple):
    """A call that was begun."""

    hook: Hook
    pending: Pending
    deadline_s: float


class Unit:
    """A driver, or an object with hooks, of one plugin."""

    def __init__(
        self,
        plugin: str,
        kind: str,
        name: str,
        instance: Any,
        *,
        changed: Callable[[], None] | None = None,
    ) -> None:
        self.plugin: Final = plugin
        self.kind: Final = kind
        self.name: Final = name
        self.instance: Final = instance
        self.functions: dict[str, Callable[..., Any]] = {}
        """Hook -> how it is called, filled at registration."""
        self.ready = False
        """Drivers: its preflight succeeded."""
        self.reason = "its preflight has not ended yet"
        """Why it is not ready."""
        self.capabilities: Any = None
        """What its capabilities hook said when it became ready."""
        self.tracing = False
        self.ill = 0
        """Failures since the last call that went well."""
        self.last_error = ""
        self.calls = 0
        """Since the daemon's start."""
        self.failures = 0
        """Those of them that failed; a time-out is a failure too."""
        self.timeouts = 0
        self._changed = changed
        self._lock = threading.Lock()
        self._bulkheads: dict[str, Bulkhead] = {}
        self._seen: dict[tuple[str, str, str], int] = {}

    @property
    def label(self) -> str:
        """Return what identifies it: ``storage:dir``."""
        return f"{self.kind}:{self.name}"

    @property
    def open(self) -> bool:
        """Return whether the circuit for its ordinary work is open."""
        bulkhead = self._bulkheads.get("work")
        return bulkhead is not None and bulkhead.state == "open"

    @property
    def open_lanes(self) -> list[str]:
        """Return the names of all its lanes whose circuit is open."""
        return sorted(lane for lane, bulkhead in self._bulkheads.copy().items() if bulkhead.state == "open")

    @property
    def sick(self) -> bool:
        """Return whether several calls in a row failed."""
        return self.ill >= _ILL_AFTER

    def bulkhead(self, lane: str) -> Bulkhead:
        """Return the pool of a lane."""
        with self._lock:
            if lane not in self._bulkheads:
                name = f"{self.plugin}/{self.label}/{lane}"
                threads = _FENCE_THREADS if lane.startswith("node ") else THREADS
                self._bulkheads[lane] = Bulkhead(name, threads=threads, changed=self._changed)
            return self._bulkheads[lane]

    def call(self, hook: Hook, arguments: Mapping[str, Any]) -> Any:
        """Call a hook and return its result; raises DriverError or Cancelled."""
        return self.finish(self.begin(hook, arguments))

    def begin(self, hook: Hook, arguments: Mapping[str, Any]) -> Call:
        """Hand a call to the unit's threads; raises DriverError when the circuit is open."""
        if self.tracing:
            trace_log.info("hook-call plugin=%s hook=%s %s", self.plugin, hook.name, redacted_arguments(arguments))
        function = self.functions[hook.name]

        def run() -> Any:
            # It may have waited long for a thread: whoever told it to stop has been told that it was not done.
            progress = arguments.get("progress")
            if progress is not None and progress(0.0):
                raise Cancelled("it was stopped before it began")
            return function(**arguments)

        try:
            pending = self.bulkhead(self._lane(hook, arguments)).submit(run)
        except DriverError as error:
            raise self._named(error, hook.name) from None
        return Call(hook, pending, deadline_of(hook))

    def finish(self, call: Call) -> Any:
        """Wait for a call that was begun and return its result; raises DriverError or Cancelled."""
        hook = call.hook.name
        slow_s = call.deadline_s if call.hook.lane == "long" else SLOW_S
        try:
            outcome = call.pending.wait(call.deadline_s, slow_s=slow_s, slow=lambda: self._slow(hook, slow_s))
        except DeadlineExceeded as error:
            self._count(hook, error)
            log.warning("hook-timeout plugin=%s unit=%s hook=%s error=%s", self.plugin, self.label, hook, error)
            raise self._named(error, hook) from None
        if outcome.error is None:
            wrong = self._contract(call.hook, outcome.value)
            if wrong is not None:
                outcome = Outcome(None, wrong)
        self._count(hook, outcome.error)
        if self.tracing:
            answer = redacted(outcome.value) if outcome.error is None else type(outcome.error).__name__
            trace_log.info("hook-return plugin=%s hook=%s result=%s", self.plugin, hook, answer)
        if outcome.error is not None:
            self.fail(outcome.error, hook)
        return outcome.value

    def run(self, what: str, function: Callable[[], T], deadline_s: float, lane: str) -> T:
        """Run something of the plugin that is not a hook, such as a role service; raises DriverError."""
        try:
            outcome = self.bulkhead(lane).run(function, deadline_s)
        except DeadlineExceeded as error:
            self._count(what, error)
            raise self._named(error, what) from None
        except DriverError as error:
            raise self._named(error, what) from None
        self._count(what, outcome.error)
        if outcome.error is not None:
            self.fail(outcome.error, what)
        return cast("T", outcome.value)

    def fail(self, error: BaseException, hook: str) -> NoReturn:
        """Raise what an exception of the plugin becomes: DriverError, or Cancelled."""
        if isinstance(error, Cancelled):
            raise error
        if isinstance(error, DriverError):
            raise self._named(error, hook)
        if isinstance(error, PvcError):
            retryable = not isinstance(error, InvalidRequest)
            raise DriverError(str(error), retryable=retryable, plugin=self.plugin, hook=hook) from error
        self._log_once(error, hook)
        raise DriverError(f"unexpected {describe(error)}", plugin=self.plugin, hook=hook) from error

    def shut(self) -> None:
        """Let in no more calls; waits for none."""
        with self._lock:
            bulkheads = list(self._bulkheads.values())
        for bulkhead in bulkheads:
            bulkhead.shut()

    def _lane(self, hook: Hook, arguments: Mapping[str, Any]) -> str:
        # Each node's power controller has a circuit of its own: two that hang must not keep a third from being used.
        target = arguments.get("target") if self.kind == "fencing" else None
        lane: Lane = hook.lane
        return lane if target is None else f"node {target.node}"

    def _contract(self, hook: Hook, value: Any) -> PluginContractError | None:
        if hook.kind == "event" or (hook.kind == "collect" and value is None):
            return None
        wrong = mismatch(value, hook.returns)
        if wrong is None:
            return None
        wanted = text_of(hook.returns)
        also = "" if wanted in wrong else f"; the specification says {wanted}"
        return PluginContractError(f"it returned {wrong}{also}")

    def _named(self, error: DriverError, hook: str) -> DriverError:
        error.plugin = error.plugin or self.plugin
        error.hook = error.hook or hook
        return error

    def _slow(self, hook: str, after_s: float) -> None:
        log.warning("hook-slow plugin=%s unit=%s hook=%s seconds=%g", self.plugin, self.label, hook, after_s)

    def _count(self, hook: str, error: BaseException | None) -> None:
        failed = error is not None and not isinstance(error, (*_ANSWERS, Cancelled))
        with self._lock:
            self.calls += 1
            self.failures += failed
            self.timeouts += isinstance(error, DeadlineExceeded)
            was_sick = self.sick
            self.ill = self.ill + 1 if failed else 0
            if error is not None and failed:
                said = error.args[0] if isinstance(error, DriverError) else describe(error)
                self.last_error = f"{hook}: {said}"
            changed = was_sick != self.sick
        if changed and self._changed is not None:
            self._changed()

    def _log_once(self, error: BaseException, hook: str) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        fingerprint = (hook, type(error).__name__, place)
        with self._lock:
            if len(self._seen) >= _FINGERPRINTS_MAX:
                self._seen.clear()
            count = self._seen[fingerprint] = self._seen.get(fingerprint, 0) + 1
        if count == 1:
            log.error(
                "hook-raised plugin=%s unit=%s hook=%s error=%s",
                self.plugin,
                self.label,
                hook,
                describe(error),
                exc_info=error,
            )
