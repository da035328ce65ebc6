"""Pinging a guest all the time, to see how long it was away."""

import itertools
import re
import subprocess
import tempfile
from types import TracebackType
from typing import Final, NamedTuple, Self

from pvc_core.plugin.process import run
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.layout import Layout

_ANSWER: Final = re.compile(rb"^\[(\d+\.\d+)\] \d+ bytes from .*icmp_seq=(\d+)", re.MULTILINE)
_ASKED: Final = re.compile(rb"^(\d+) packets transmitted", re.MULTILINE)
_END_DEADLINE_S: Final = 5.0


class Pinged(NamedTuple):
    """What a run of pings saw."""

    asked: int
    answered: int
    longest_gap_s: float
    """Longest time between two answers, the pause between two pings included."""


class Ping:
    """Pings an address from a sandbox's switch for as long as the ``with`` block lasts; then ``result``.

    ``interval_s`` is the pause between two pings, in seconds.
    """

    def __init__(self, layout: Layout, address: str, *, interval_s: float = 0.02) -> None:
        self._argv = ["ip", "netns", "exec", layout.switch, "ping", "-D", "-n", "-i", f"{interval_s:g}", address]
        self._address = address
        self._result: Pinged | None = None

    def __enter__(self) -> Self:
        self._output = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(2)  # SIGINT: it then prints its sums
        try:
            self._process.wait(_END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._output as output:
            output.seek(0)
            self._result = self._parse(output.read())

    def answers(self) -> int:
        """Return how many answers there were so far."""
        with open(f"/proc/self/fd/{self._output.fileno()}", "rb") as file:  # noqa: PTH123 - an offset of its own
            return len(_ANSWER.findall(file.read()))

    @property
    def result(self) -> Pinged:
        """What was seen; after the ``with`` block."""
        if self._result is None:
            raise SandboxError("the pinging is still going on")
        return self._result

    def _parse(self, text: bytes) -> Pinged:
        times = [float(moment) for moment, _ in _ANSWER.findall(text)]
        asked = _ASKED.search(text)
        if asked is None:
            last = (text.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
            raise SandboxError(f"ping {self._address} did not work: {last}")
        gaps = [after - before for before, after in itertools.pairwise(times)]
        return Pinged(int(asked[1]), len(times), max(gaps, default=float("inf")))


def answers(layout: Layout, address: str) -> bool:
    """Return whether an address answers one ping within a second, from the switch."""
    argv = ["ip", "netns", "exec", layout.switch, "ping", "-c", "1", "-W", "1", address]
    return run(argv, deadline_s=_END_DEADLINE_S).returncode == 0
