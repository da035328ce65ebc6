"""How long a worker is waited for; without Ceph: its pipe is played."""

import itertools

import msgspec
import pytest

from pvc_ceph import workers
from pvc_ceph.protocol import Answer, Call, Done, Proceed, Progress

CALL = Call(name="volume-clone")


class Played(workers.Worker):
    """A worker that says something every 400 s, or after another pause."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> None:
        self.now = 1000.0
        self.pauses = itertools.repeat(400.0)
        self.sent: list[msgspec.Struct] = []
        self._answers = iter(answers)
        monkeypatch.setattr(workers.time, "monotonic", lambda: self.now)

    def _send(self, message: msgspec.Struct) -> None:
        self.sent.append(message)

    def _receive(self, deadline: float) -> bytes:
        self.now += next(self.pauses)
        if self.now > deadline:
            raise workers._Late
        return msgspec.msgpack.encode(next(self._answers))


def parts(*, last: Answer | None = None) -> list[Answer]:
    return [*(Progress(part / 10) for part in range(1, 10)), *([last] if last else [])]


def test_what_tells_how_far_it_is_has_time_as_long_as_it_does(monkeypatch):
    seen: list[float] = []
    worker = Played(monkeypatch, *parts(last=Done("done")))
    assert worker.call(CALL, 1590.0, lambda part: bool(seen.append(part))) == "done"
    assert seen == [part / 10 for part in range(1, 10)]
    assert worker.now == 1000.0 + 10 * 400.0
    assert worker.sent == [CALL, *itertools.repeat(Proceed(stop=False), 9)]


def test_what_tells_nothing_more_is_late(monkeypatch):
    worker = Played(monkeypatch, *parts(last=Done("done")))
    worker.pauses = iter((400.0, 400.0, 600.0))
    with pytest.raises(workers._Late):
        worker.call(CALL, 1590.0, lambda _: False)
    assert worker.now == 1000.0 + 1400.0


def test_without_a_report_all_of_it_has_one_time(monkeypatch):
    worker = Played(monkeypatch, *parts(last=Done("done")))
    with pytest.raises(workers._Late):
        worker.call(CALL, 1590.0, None)
    assert worker.now == 1800.0
