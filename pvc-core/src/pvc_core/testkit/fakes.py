"""Fake drivers with faults and delays: what core's own tests and the simulator run on.

They pass the same contract suites as real drivers (``pvc_core.testkit.contracts``).
"""

from pvc_core.testkit.fake_fence import FakeFence, FakePower
from pvc_core.testkit.fake_network import FakeNetwork
from pvc_core.testkit.fake_storage import FakeBackend, FakeStorage
from pvc_core.testkit.faults import Faults

__all__ = ["FakeBackend", "FakeFence", "FakeNetwork", "FakePower", "FakeStorage", "Faults"]
