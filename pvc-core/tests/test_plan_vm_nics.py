"""The NICs of a running guest: what is decided, one rule at a time; and that a MAC address is free only when no guest has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from pvc_core.model import vm as model
from pvc_core.model.vm import (
    MigrationPhase,
    MigrationRecord,
    Nic,
    NicLimits,
    VmClaim,
    VmSpec,
    VmState,
    VmStatus,
    kept_nics,
    started_with,
)
from pvc_core.plan import vm as plan


def nic(number: int, **fields: object) -> Nic:
    return Nic(network="lan", mac=f"52:54:00:00:00:0{number}", **fields)  # type: ignore[arg-type]


ONE, TWO, MORE = nic(1), nic(2), nic(3)
VM = VmSpec(id="v1", name="web", memory_mib=512, vcpus=4, power="running", node="a", generation=3, nics=(ONE, TWO))
MINE = VmClaim(vm="v1", node="a", lease=7, epoch=3)


def guest(*nics: Nic, **fields: object) -> plan.DomainView:
    """A running guest that has these NICs."""
    base = {"executing": True, "running_for_s": 500.0, "nics": tuple(each.mac for each in nics)}
    return plan.DomainView(**(base | fields))  # type: ignore[arg-type]


def status(*nics: Nic, **fields: object) -> VmStatus:
    """The status of a guest that was started with these NICs."""
    known = VmStatus(
        id="v1",
        state=VmState.RUNNING,
        node="a",
        observed_generation=VM.generation,
        **started_with(replace(VM, nics=nics)),
    )
    return replace(known, **fields)


def decide(vm: VmSpec, domain: plan.DomainView | None, known: VmStatus, **fields: object) -> plan.Action:
    base: dict[str, object] = {"me": "a", "lease": 7, "now": 100.0, "claim": MINE}
    return plan.decide(plan.Snapshot(vm=vm, domain=domain, status=known, **(base | fields)))  # type: ignore[arg-type]


def said(action: plan.Action) -> VmStatus:
    assert isinstance(action, plan.SetStatus)
    return action.status


def reasons(action: plan.Action) -> dict[str, tuple[str, str]]:
    return {c.type: (c.reason, c.message) for c in said(action).conditions}


def with_nics(*nics: Nic, **fields: object) -> VmSpec:
    return replace(VM, nics=nics, **fields)


def removing(which: Nic) -> Nic:
    return replace(which, removing=True)


GOING = with_nics(ONE, removing(TWO))


# --- coming -----------------------------------------------------------------------------------------


def test_a_guest_with_the_nics_that_are_wanted_is_left_alone():
    assert decide(VM, guest(ONE, TWO), status(ONE, TWO)) == plan.Idle()


def test_a_nic_is_in_the_status_before_it_is_plugged_in():
    vm = with_nics(ONE, TWO, MORE)
    first = said(decide(vm, guest(ONE, TWO), status(ONE, TWO)))
    assert first.guest_nics == (ONE, TWO, MORE)
    assert replace(first, guest_nics=None) == replace(status(ONE, TWO), guest_nics=None)
    assert decide(vm, guest(ONE, TWO), first) == plan.PlugNic(nic=MORE)
    assert decide(vm, guest(ONE, TWO, MORE), first) == plan.Idle()


def test_a_nic_that_failed_to_be_plugged_in_is_tried_again_after_a_growing_pause():
    vm, known = with_nics(ONE, MORE), status(ONE, MORE)
    tried = plan.DeviceTry(what="plug", first=90.0, last=98.0, count=2, error="no slot")
    memory = plan.Memory(attached=True, tries={MORE.mac: tried})
    waits = decide(vm, guest(ONE), known, memory=memory)
    assert reasons(waits)["Nics"] == ("PlugFailed", f"{MORE.title} cannot be plugged in: no slot")
    assert decide(vm, guest(ONE), said(waits), memory=memory) == plan.Idle(again_s=2.0)
    assert decide(vm, guest(ONE), said(waits), memory=memory, now=102.0) == plan.PlugNic(nic=MORE)
    assert reasons(decide(vm, guest(ONE, MORE), said(waits))) == {}


# --- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{"link_up": False}, {"limits": NicLimits(in_average=5)}, {"addresses": ("10.0.0.1",)}]
)
def test_links_limits_and_addresses_change_at_once_and_only_they(changes):
    vm = with_nics(ONE, replace(TWO, model="e1000", **changes))
    begun = said(decide(vm, guest(ONE, TWO), status(ONE, TWO)))
    assert begun == status(ONE, TWO, unsettled=(TWO.mac,))
    action = decide(vm, guest(ONE, TWO), begun)
    assert action == plan.AdjustNic(nic=replace(TWO, **changes))
    # Also when it is not wanted any more: it may have been changed.
    assert decide(VM, guest(ONE, TWO), begun) == plan.AdjustNic(nic=TWO)
    done = plan.recorded_nic(begun, action.nic)
    assert done.unsettled == ()
    assert "has other settings: model" in reasons(decide(vm, guest(ONE, TWO), done))["Hardware"][1]


@pytest.mark.parametrize("changes", [{"model": "e1000"}, {"queues": 2}, {"parameters": {"vf": "3"}}])
def test_other_settings_wait_for_a_restart_and_say_so(changes):
    action = decide(with_nics(ONE, replace(TWO, **changes)), guest(ONE, TWO), status(ONE, TWO))
    reason, message = reasons(action)["Hardware"]
    assert reason == "RestartNeeded"
    assert f"({TWO.title} has other settings: {next(iter(changes))}); restart it" in message


def test_another_order_waits_for_a_restart():
    action = decide(with_nics(TWO, ONE), guest(ONE, TWO), status(ONE, TWO))
    assert "its NICs are in another order" in reasons(action)["Hardware"][1]


def test_settings_that_cannot_be_changed_are_tried_again():
    vm = with_nics(ONE, replace(TWO, link_up=False))
    tried = plan.DeviceTry(what="adjust", first=99.0, last=99.0, error="busy")
    known = status(ONE, TWO, unsettled=(TWO.mac,))
    waits = decide(vm, guest(ONE, TWO), known, memory=plan.Memory(tries={TWO.mac: tried}))
    assert reasons(waits)["Nics"] == ("ChangeFailed", f"the settings of {TWO.title} cannot be changed: busy")


# --- going ------------------------------------------------------------------------------------------


def test_a_nic_that_is_to_be_taken_away_is_asked_for_and_released_once_the_domain_has_it_no_more():
    known = status(ONE, TWO)
    assert decide(GOING, guest(ONE, TWO), known) == plan.UnplugNic(nic=removing(TWO))
    tried = plan.DeviceTry(what="unplug", first=100.0, last=100.0)
    asked = decide(GOING, guest(ONE, TWO), known, memory=plan.Memory(tries={TWO.mac: tried}))
    assert reasons(asked)["Nics"] == ("Unplugging", f"the guest was asked to let go of {TWO.title}")
    assert decide(GOING, guest(ONE), known) == plan.ReleaseNics(macs=(TWO.mac,))


def test_a_guest_that_keeps_a_nic_is_named_and_asked_again():
    tried = plan.DeviceTry(what="unplug", first=60.0, last=95.0, count=1)
    memory = plan.Memory(tries={TWO.mac: tried})
    kept = decide(GOING, guest(ONE, TWO), status(ONE, TWO), memory=memory)
    assert reasons(kept)["Nics"][0] == "GuestKeepsNic"
    assert "by adding the NIC again" in reasons(kept)["Nics"][1]
    assert decide(GOING, guest(ONE, TWO), said(kept), memory=memory) == plan.Idle(again_s=5.0)
    assert isinstance(decide(GOING, guest(ONE, TWO), said(kept), memory=memory, now=105.0), plan.UnplugNic)
    assert said(decide(VM, guest(ONE, TWO), said(kept), memory=memory)).conditions == ()


def test_a_nic_that_may_still_be_plugged_in_is_not_released():
    lost = plan.DeviceTry(what="plug", first=90.0, last=90.0, error="libvirt is gone", unsure=True)
    memory = plan.Memory(tries={TWO.mac: lost})
    waits = decide(GOING, guest(ONE), status(ONE, TWO), memory=memory)
    assert reasons(waits)["Nics"] == ("Unplugging", f"{TWO.title} may be plugged in yet: libvirt is gone")
    assert decide(GOING, guest(ONE), said(waits), memory=memory, now=120.0) == plan.ReleaseNics(macs=(TWO.mac,))


def test_when_the_guest_stops_its_removed_nics_are_released_before_the_claim():
    stop = replace(GOING, power="stopped")
    assert decide(stop, None, status(ONE, TWO), memory=plan.Memory(attached=True)) == plan.Detach()
    assert decide(stop, None, status(ONE, TWO)) == plan.ReleaseNics(macs=(TWO.mac,))
    assert decide(replace(stop, nics=(ONE,)), None, status(ONE)) == plan.ReleaseClaim()
    assert decide(GOING, None, status(ONE, TWO)) == plan.ReleaseNics(macs=(TWO.mac,))
    vacant = replace(MINE, node="")
    assert decide(stop, None, status(ONE, TWO), claim=vacant) == plan.ReleaseNics(macs=(TWO.mac,))


@pytest.mark.parametrize("phase", list(MigrationPhase))
def test_nothing_is_plugged_or_released_in_a_live_migration(phase):
    record = MigrationRecord(target="b", attempt="m", phase=phase)
    changed = with_nics(replace(ONE, link_up=False), TWO)
    for vm, has in ((with_nics(ONE, MORE), (ONE,)), (GOING, (ONE, TWO)), (GOING, (ONE,)), (changed, (ONE, TWO))):
        for me in ("a", "b"):
            claim = replace(MINE, migration=record)
            action = decide(vm, guest(*has), status(ONE, TWO), me=me, claim=claim, target_alive=True)
            assert not isinstance(action, (plan.PlugNic, plan.UnplugNic, plan.ReleaseNics, plan.AdjustNic))


@pytest.mark.parametrize("fields", [{"executing": False}, {"transfer": True}])
def test_a_guest_that_stands_still_or_leaves_is_not_changed(fields):
    action = decide(GOING, guest(ONE, TWO, **fields), status(ONE, TWO))
    assert not isinstance(action, plan.UnplugNic)


# --- guests of an earlier version -------------------------------------------------------------------


def test_of_a_guest_of_an_earlier_version_nothing_is_changed_and_the_next_start_is_told():
    older = status(ONE, TWO, guest_nics=None, running_hardware=model._fingerprint(VM, model._HARDWARE_AND_NICS))
    # Its aliases are libvirt's own.
    assert decide(VM, guest(), older) == plan.Idle()
    for vm in (GOING, with_nics(ONE, TWO, MORE), with_nics(ONE, replace(TWO, link_up=False))):
        assert reasons(decide(vm, guest(), older))["Hardware"][0] == "RestartNeeded"
    assert f"({TWO.title} is taken away when it stops)" in reasons(decide(GOING, guest(), older))["Hardware"][1]


@given(st.integers(0, 3), st.integers(0, 3))
def test_a_release_is_seen_at_once_and_starts_no_guest_that_ended_for_good(observed: int, halted: int):
    known = status(ONE, TWO, observed_generation=observed, halted=halted)
    vm, after = plan.released_nics(GOING, known, (TWO.mac,))
    assert after is not None
    assert (vm.nics, after.guest_nics) == ((ONE,), (ONE,))
    assert (after.observed_generation == vm.generation) == (observed == GOING.generation)
    assert (after.halted == vm.generation) == (halted == GOING.generation)


# --- schedules --------------------------------------------------------------------------------------


class Schedules(RuleBasedStateMachine):
    """A node, its guest and an operator, in any order; the daemon forgets, its effects come at any time or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.vm = with_nics(ONE)
        self.status = status(ONE)
        self.memory = plan.Memory()
        self.running: dict[str, Nic] | None = {ONE.mac: ONE}
        self.asked: set[str] = set()
        self.now = 100.0

    @rule(number=st.integers(1, 4), up=st.booleans())
    def want(self, number: int, up: bool) -> None:
        wanted = nic(number, link_up=up)
        nics = {each.mac: each for each in self.vm.nics} | {wanted.mac: wanted}
        self.vm = replace(self.vm, nics=tuple(nics.values()), generation=self.vm.generation + 1)

    @rule(number=st.integers(1, 4))
    def remove(self, number: int) -> None:
        nics = tuple(removing(each) if each.mac == nic(number).mac else each for each in self.vm.nics)
        self.vm = replace(self.vm, nics=nics, generation=self.vm.generation + 1)

    @rule(lost=st.booleans())
    def act(self, lost: bool) -> None:
        """Carry out what is decided now; ``lost``: the daemon dies before it can take note."""
        domain = guest(*self.running.values()) if self.running is not None else None
        action = decide(self.vm, domain, self.status, memory=self.memory, now=self.now)
        match action:
            case plan.SetStatus():
                self.status = action.status
            case plan.StartDomain():
                assert self.status.guest_nics == self.vm.nics == kept_nics(self.vm)
                self.running, self.asked = {each.mac: each for each in self.vm.nics}, set()
            case plan.PlugNic() if self.running is not None:
                assert action.nic.mac not in self.running
                self.running[action.nic.mac] = action.nic
            case plan.UnplugNic():
                self.asked.add(action.nic.mac)
                tried = plan.DeviceTry(what="unplug", first=self.now, last=self.now)
                self.memory = replace(self.memory, tries={**self.memory.tries, action.nic.mac: tried})
            case plan.AdjustNic() if self.running is not None:
                self.running[action.nic.mac] = action.nic
                if not lost:
                    self.status = plan.recorded_nic(self.status, action.nic)
            case plan.ReleaseNics():
                vm, known = plan.released_nics(self.vm, self.status, action.macs)
                assert known is not None
                self.vm, self.status = vm, known
        if lost:
            self.memory = plan.Memory()

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        self._let_go(data.draw(st.sampled_from(sorted(self.asked))))

    def _let_go(self, mac: str) -> None:
        self.asked.discard(mac)
        if self.running is not None:
            self.running.pop(mac, None)

    @rule()
    def wait(self) -> None:
        self.now += 400.0

    @rule()
    def crash(self) -> None:
        self.running, self.asked = None, set()

    @invariant()
    def the_vm_has_every_address_that_its_guest_has(self) -> None:
        assert set(self.running or ()) <= {each.mac for each in self.vm.nics}
        assert set(self.running or ()) <= {each.mac for each in self.status.guest_nics or ()}

    def teardown(self) -> None:
        """In the end, with a guest that lets go, all is as wanted."""
        for _ in range(60):
            self.act(lost=False)
            for mac in sorted(self.asked):
                self._let_go(mac)
            self.wait()
        assert {mac: each.link_up for mac, each in (self.running or {}).items()} == {
            each.mac: each.link_up for each in self.vm.nics
        }
        assert not any(each.removing for each in self.vm.nics)
        assert {c.type for c in self.status.conditions} <= {"Hardware"}  # only their order may wait for a restart


TestSchedules = Schedules.TestCase
