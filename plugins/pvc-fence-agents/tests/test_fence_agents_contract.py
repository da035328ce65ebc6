"""The fence contract: with an agent of our own that can be broken in every way."""

from pathlib import Path

import pytest

from pvc_core.plugin import FenceDriver, FenceTarget
from pvc_core.testkit.contracts.fencing import FencingContract

_BREAK = {
    "stuck": {"off": "sys.exit(0)", "on": "sys.exit(0)"},
    "silent": dict.fromkeys(("status", "on", "off"), "if plug == 'node1': time.sleep(600)"),
    "unreadable": {"status": "fail('Unable to obtain correct plug status')"},
}


class FakeBackend:
    secrets = ("opensesame", "sesamopen")

    def __init__(self, cabinet):
        self._cabinet = cabinet
        cabinet.require("opensesame")

    def driver(self) -> FenceDriver:
        return self._cabinet.driver(status_timeout=2, power_timeout=6)

    def target(self, node: str) -> FenceTarget:
        return self._cabinet.target(node, password_file=self._cabinet.secret("opensesame"))

    def is_on(self, node: str) -> bool:
        return self._cabinet.is_on(node)

    def switch(self, node: str, *, on: bool) -> None:
        self._cabinet.switch(node, on=on)

    def break_controller(self, node: str, how: str) -> bool:
        assert node == "node1"
        self._cabinet.behave(**_BREAK[how])
        return True

    def wrong_password(self, node: str) -> FenceTarget:
        return self._cabinet.target(node, password_file=self._cabinet.secret("sesamopen", "wrong"))

    def close(self) -> None:
        assert set(self._cabinet.actions()) <= {"status", "on", "off"}


class TestFakeAgent(FencingContract):
    __test__ = True

    @pytest.fixture(autouse=True)
    def _maker(self, make_cabinet) -> None:
        self._make_cabinet = make_cabinet

    def make_backend(self, tmp_path: Path) -> FakeBackend:
        return FakeBackend(self._make_cabinet(tmp_path))
