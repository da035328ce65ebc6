"""The power of a node is cut only while its devices answer and nothing speaks against it."""

from pvc_core.model.fence import FenceDevice, FenceLevel
from pvc_core.node.clock import SystemClock
from pvc_core.node.fence_calls import FenceCalls, Outcome
from pvc_core.plugin.specs.fencing import FenceTarget, PowerState
from pvc_core.testkit.drivers import DirectDrivers
from pvc_core.testkit.fake_fence import FakeFence, FakePower

LEVEL = FenceLevel(devices=(FenceDevice(driver="left"), FenceDevice(driver="right")))


class Supplies:
    """A node with two power supplies."""

    def __init__(self):
        self.powers = {"left": FakePower(), "right": FakePower()}
        for power in self.powers.values():
            power.add("hv1")
        self.drivers = {name: FakeFence(power) for name, power in self.powers.items()}
        self.calls = FenceCalls(DirectDrivers(fencing=self.drivers), SystemClock())

    def off(self, **options):
        return self.calls.off("hv1", LEVEL, **options)

    def read(self):
        return {name: power.read("hv1").value for name, power in self.powers.items()}


def test_level_is_switched_off_where_nothing_speaks_against_it():
    supplies = Supplies()
    assert supplies.off(unless=lambda: "") == Outcome(ok=True, message="left: off, right: off")
    assert supplies.read() == {"left": "off", "right": "off"}


def test_no_device_is_told_where_something_speaks_against_it():
    supplies = Supplies()
    assert supplies.off(unless=lambda: "the node is back") == Outcome(ok=False, message="the node is back")
    assert supplies.read() == {"left": "on", "right": "on"}


def test_no_device_is_told_while_one_does_not_answer():
    supplies = Supplies()
    supplies.powers["right"].silent.add("hv1")
    outcome = supplies.off(unless=lambda: "")
    assert not outcome.ok
    assert outcome.message.startswith("right: ")
    supplies.powers["right"].silent.clear()
    assert supplies.read() == {"left": "on", "right": "on"}


def test_what_speaks_against_it_is_asked_after_the_last_device_has_answered():
    supplies, order = Supplies(), []

    class Slow(FakeFence):
        def power_status(self, target: FenceTarget) -> PowerState:
            order.append("read")
            return super().power_status(target)

    supplies.drivers["right"] = Slow(supplies.powers["right"])
    supplies.calls = FenceCalls(DirectDrivers(fencing=supplies.drivers), SystemClock())
    supplies.off(unless=lambda: order.append("asked") or "the node is back")
    assert order == ["read", "asked"]
