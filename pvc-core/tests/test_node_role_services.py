"""Role services that take longer than they may."""

from pvc_core.node.clock import SystemClock
from pvc_core.node.services import RoleServices
from pvc_core.node.state import NodeState
from pvc_core.plugin.errors import DeadlineExceeded
from pvc_core.plugin.specs.lifecycle import RoleService


class Address(RoleService):
    name, order = "address", 10

    def __init__(self):
        self.here = False

    def acquire(self, term):
        self.here = True

    def relinquish(self):
        self.here = False


class Slow:
    """Calls of acquires go on after their deadline, until ``end``."""

    def __init__(self):
        self.late = []

    def __call__(self, what, function, deadline_s):
        if what.startswith("acquire"):
            self.late.append(function)
            raise DeadlineExceeded(f"{what} did not come back within {deadline_s:g} s")
        function()

    def end(self):
        for function in self.late:
            function()
        self.late.clear()


def services_of(address, call):
    return RoleServices([address], NodeState(SystemClock(), lambda: None), SystemClock(), call=call)


def test_a_service_that_is_there_only_when_the_role_is_gone_is_ended_at_once():
    address, call = Address(), Slow()
    services = services_of(address, call)
    services.acquire(1, lambda: True)
    services.relinquish()
    call.end()
    assert not address.here


def test_a_service_that_is_there_late_but_in_its_term_stays():
    address, call = Address(), Slow()
    services = services_of(address, call)
    services.acquire(1, lambda: True)
    call.end()
    assert address.here
