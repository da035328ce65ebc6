"""The fake fence driver keeps the contract."""

from pathlib import Path

from pvc_core.plugin.specs.fencing import FenceDriver, FenceTarget, PowerState
from pvc_core.testkit.contracts.fencing import FencingContract
from pvc_core.testkit.fakes import FakeFence, FakePower


class Backend:
    secrets = ()

    def __init__(self):
        self.changes: list[tuple[str, PowerState]] = []
        self.power = FakePower(lambda node, power: self.changes.append((node, power)))
        self.really_on = {"node1": True, "node2": True}
        for node in self.really_on:
            self.power.add(node)

    def driver(self) -> FenceDriver:
        return FakeFence(self.power)

    def target(self, node: str) -> FenceTarget:
        return FenceTarget(node=node, parameters={"address": "192.0.2.1", "password_file": "/etc/pvc/bmc"})

    def is_on(self, node: str) -> bool:
        last = [power for changed, power in self.changes if changed == node]
        return (last[-1] is PowerState.ON) if last else self.really_on[node]

    def switch(self, node: str, *, on: bool) -> None:
        self.really_on[node] = on
        self.power.add(node, PowerState.ON if on else PowerState.OFF)

    def break_controller(self, node: str, how: str) -> bool:
        {"stuck": self.power.stuck, "silent": self.power.silent, "unreadable": self.power.unreadable}[how].add(node)
        return True

    def wrong_password(self, node: str) -> FenceTarget | None:
        return None

    def close(self) -> None:
        pass


class TestFakeFence(FencingContract):
    __test__ = True

    def make_backend(self, tmp_path: Path) -> Backend:
        return Backend()
