"""The disks of a running guest: what is decided, one rule at a time; and that a volume is free only when no guest has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from pvc_core.model.disk import DiskLimits
from pvc_core.model.vm import (
    Disk,
    MigrationPhase,
    MigrationRecord,
    VmClaim,
    VmSpec,
    VmState,
    VmStatus,
    kept_disks,
    started_with,
)
from pvc_core.plan import vm as plan


def disk(volume: str, **fields: object) -> Disk:
    return Disk(pool="ssd", volume=volume, **fields)  # type: ignore[arg-type]


ROOT, DATA, MORE = disk("root"), disk("data"), disk("more")
VM = VmSpec(id="v1", name="web", memory_mib=512, vcpus=1, power="running", node="a", generation=3, disks=(ROOT, DATA))
MINE = VmClaim(vm="v1", node="a", lease=7, epoch=3)


def guest(*disks: Disk, **fields: object) -> plan.DomainView:
    """A running guest that has these disks."""
    has = tuple(plan.GuestDisk(target=f"vd{'abcdef'[n]}", bus=d.bus, volume=d.path) for n, d in enumerate(disks))
    return plan.DomainView(**({"executing": True, "running_for_s": 500.0, "disks": has} | fields))  # type: ignore[arg-type]


def status(*disks: Disk, **fields: object) -> VmStatus:
    """The status of a guest that was started with these disks."""
    known = VmStatus(
        id="v1",
        state=VmState.RUNNING,
        node="a",
        observed_generation=VM.generation,
        **started_with(replace(VM, disks=disks)),
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


def with_disks(*disks: Disk, **fields: object) -> VmSpec:
    return replace(VM, disks=disks, **fields)


def removing(which: Disk) -> Disk:
    return replace(which, removing=True)


# --- plugging in ------------------------------------------------------------------------------------


def test_a_guest_with_the_disks_that_are_wanted_is_left_alone():
    assert decide(VM, guest(ROOT, DATA), status(ROOT, DATA)) == plan.Idle()


def test_a_disk_is_in_the_status_before_it_is_plugged_in():
    vm = with_disks(ROOT, DATA, MORE)
    first = said(decide(vm, guest(ROOT, DATA), status(ROOT, DATA)))
    assert first.running_disks == ("ssd/root", "ssd/data", "ssd/more")
    assert first.guest_disks == (ROOT, DATA, MORE)
    # What is said is no more than that: the change counts as seen when nothing more is to be done about it.
    assert replace(first, running_disks=None, guest_disks=None) == replace(
        status(ROOT, DATA), running_disks=None, guest_disks=None
    )
    assert decide(vm, guest(ROOT, DATA), first) == plan.PlugDisk(disk=MORE, target="vdc")


def test_of_a_guest_that_may_write_to_more_than_disks_that_stays_unknown():
    first = said(decide(with_disks(ROOT, DATA, MORE), guest(ROOT, DATA), status(ROOT, DATA, running_disks=None)))
    assert (first.running_disks, first.guest_disks) == (None, (ROOT, DATA, MORE))


def test_a_disk_gets_the_first_name_that_no_disk_has():
    middle = guest(ROOT, DATA, MORE)
    middle = replace(middle, disks=(middle.disks[0], middle.disks[2]))
    other = disk("other")
    vm = with_disks(ROOT, MORE, other)
    assert decide(vm, middle, status(ROOT, MORE, other)) == plan.PlugDisk(disk=other, target="vdb")


def test_a_disk_whose_settings_changed_before_it_was_plugged_in_is_said_anew():
    wanted = replace(MORE, cache="writeback")
    first = said(decide(with_disks(ROOT, wanted), guest(ROOT), status(ROOT, MORE)))
    assert first.guest_disks == (ROOT, wanted)


def test_a_scsi_disk_is_plugged_in_behind_its_controller():
    vm, known = with_disks(ROOT, replace(MORE, bus="scsi")), status(ROOT, replace(MORE, bus="scsi"))
    assert decide(vm, guest(ROOT), known) == plan.PlugController(volume="ssd/more")
    has_one = guest(ROOT, controllers=frozenset({"scsi"}))
    assert decide(vm, has_one, known) == plan.PlugDisk(disk=vm.disks[1], target="sda")


@pytest.mark.parametrize(
    ("bus", "controllers", "plugged"),
    [
        ("virtio", (), True),
        ("scsi", (), True),
        ("usb", ("usb",), True),
        ("usb", ("scsi",), False),
        ("sata", ("usb",), False),
        ("ide", ("usb",), False),
    ],
)
def test_what_cannot_be_plugged_in_waits_for_a_restart_and_says_so(bus, controllers, plugged):
    more = replace(MORE, bus=bus)
    action = decide(with_disks(ROOT, more), guest(ROOT, controllers=frozenset(controllers)), status(ROOT))
    if plugged:
        assert said(action).guest_disks == (ROOT, more)
    else:
        on = "sata" if bus == "ide" else bus
        reason, message = reasons(action)["Hardware"]
        assert reason == "RestartNeeded"
        assert f"(ssd/more is not plugged in while it runs, for bus {on} cannot do that); restart it" in message


def test_what_was_applied_while_it_runs_needs_no_restart():
    more = replace(MORE, limits=DiskLimits(iops=5))
    assert decide(with_disks(ROOT, DATA, more), guest(ROOT, DATA, more), status(ROOT, DATA, more)) == plan.Idle()


@pytest.mark.parametrize("changes", [{"cache": "writeback"}, {"discard": False}, {"bus": "scsi"}, {"read_only": True}])
def test_other_settings_of_a_disk_need_a_restart(changes):
    action = decide(with_disks(ROOT, replace(DATA, **changes)), guest(ROOT, DATA), status(ROOT, DATA))
    assert reasons(action)["Hardware"][0] == "RestartNeeded"
    assert "ssd/data has other settings" in reasons(action)["Hardware"][1]


def test_another_order_needs_a_restart():
    action = decide(with_disks(DATA, ROOT), guest(ROOT, DATA), status(ROOT, DATA))
    assert "its disks are in another order" in reasons(action)["Hardware"][1]


def test_a_disk_that_failed_to_be_plugged_in_is_tried_again_after_a_growing_pause():
    vm, known = with_disks(ROOT, MORE), status(ROOT, MORE)
    tried = plan.DeviceTry(what="plug", first=90.0, last=98.0, count=2, error="no slot")
    memory = plan.Memory(attached=True, tries={"ssd/more": tried})
    waits = decide(vm, guest(ROOT), known, memory=memory)
    assert reasons(waits)["Disks"] == ("PlugFailed", "ssd/more cannot be plugged in: no slot")
    assert decide(vm, guest(ROOT), said(waits), memory=memory) == plan.Idle(again_s=2.0)
    assert decide(vm, guest(ROOT), said(waits), memory=memory, now=102.0) == plan.PlugDisk(disk=MORE, target="vdb")
    assert reasons(decide(vm, guest(ROOT, MORE), said(waits))) == {}


# --- taking away ------------------------------------------------------------------------------------

GOING = with_disks(ROOT, removing(DATA))


def test_a_disk_that_is_to_be_taken_away_is_asked_for_and_stays_in_the_status():
    known = status(ROOT, DATA)
    assert decide(GOING, guest(ROOT, DATA), known) == plan.UnplugDisk(volume="ssd/data", target="vdb")
    tried = plan.DeviceTry(what="unplug", first=100.0, last=100.0)
    asked = decide(GOING, guest(ROOT, DATA), known, memory=plan.Memory(tries={"ssd/data": tried}))
    assert reasons(asked)["Disks"] == ("Unplugging", "the guest was asked to let go of ssd/data")
    assert said(asked).running_disks == ("ssd/root", "ssd/data")


def test_a_disk_is_released_once_the_domain_has_it_no_more():
    assert decide(GOING, guest(ROOT), status(ROOT, DATA)) == plan.ReleaseDisks(volumes=("ssd/data",))


def test_a_guest_that_keeps_a_disk_is_named_asked_again_and_may_keep_it():
    known = status(ROOT, DATA)
    tried = plan.DeviceTry(what="unplug", first=60.0, last=95.0, count=1, error="already being unplugged")
    memory = plan.Memory(tries={"ssd/data": tried})
    kept = decide(GOING, guest(ROOT, DATA), known, memory=memory)
    reason, message = reasons(kept)["Disks"]
    assert reason == "GuestKeepsDisk"
    assert message.startswith(
        "the guest does not let go of ssd/data (already being unplugged): it is asked again; shut"
    )
    assert decide(GOING, guest(ROOT, DATA), said(kept), memory=memory) == plan.Idle(again_s=5.0)
    assert isinstance(decide(GOING, guest(ROOT, DATA), said(kept), memory=memory, now=105.0), plan.UnplugDisk)
    taken_back = decide(VM, guest(ROOT, DATA), said(kept), memory=memory)
    assert said(taken_back).conditions == ()


def test_a_disk_that_a_guest_let_go_of_after_its_removal_was_taken_back_is_plugged_in_again():
    assert decide(VM, guest(ROOT), status(ROOT, DATA)) == plan.PlugDisk(disk=DATA, target="vdb")


def test_a_disk_that_may_still_be_plugged_in_is_not_released():
    """The answer to its plugging was lost with the hypervisor, which may do it when it goes on."""
    lost = plan.DeviceTry(what="plug", first=90.0, last=90.0, error="libvirt is gone", unsure=True)
    memory = plan.Memory(tries={"ssd/data": lost})
    waits = decide(GOING, guest(ROOT), status(ROOT, DATA), memory=memory)
    assert reasons(waits)["Disks"] == ("Unplugging", "ssd/data may be plugged in yet: libvirt is gone")
    assert decide(GOING, guest(ROOT), said(waits), memory=memory).again_s is not None
    later = decide(GOING, guest(ROOT), said(waits), memory=memory, now=120.0)
    assert later == plan.ReleaseDisks(volumes=("ssd/data",))
    assert isinstance(decide(GOING, guest(ROOT, DATA), status(ROOT, DATA), memory=memory), plan.UnplugDisk)


def test_what_is_not_wanted_any_more_was_not_tried():
    tries = {
        "ssd/data": plan.DeviceTry(what="unplug", first=1.0, last=1.0),
        "ssd/more": plan.DeviceTry(what="plug", first=1.0, last=1.0),
    }
    assert plan.still_tried(with_disks(ROOT, removing(DATA), MORE), tries) == tries
    assert plan.still_tried(with_disks(ROOT, DATA), tries) == {}
    lost = {"ssd/data": plan.DeviceTry(what="plug", first=1.0, last=1.0, unsure=True)}
    assert plan.still_tried(GOING, lost) == lost


@pytest.mark.parametrize(
    ("has", "spec"), [((ROOT, DATA), (removing(ROOT), DATA)), ((ROOT, DATA), (DATA, removing(ROOT)))]
)
def test_the_disk_that_a_guest_was_booted_from_is_taken_away_when_it_stops(has, spec):
    action = decide(with_disks(*spec), guest(*has), status(*has))
    assert "ssd/root is taken away when it stops" in reasons(action)["Hardware"][1]
    stopped = with_disks(*spec, power="stopped")
    memory = plan.Memory(attached=True)
    assert decide(stopped, None, status(*has), memory=memory) == plan.Detach()
    assert decide(stopped, None, status(*has)) == plan.ReleaseDisks(volumes=("ssd/root",))


def test_a_disk_on_a_bus_that_cannot_do_it_is_taken_away_when_the_guest_stops():
    sata = replace(DATA, bus="sata")
    action = decide(with_disks(ROOT, removing(sata)), guest(ROOT, sata), status(ROOT, sata))
    assert "ssd/data is taken away when it stops" in reasons(action)["Hardware"][1]


def test_when_the_guest_stops_its_removed_disks_are_released_before_the_claim():
    stop = replace(GOING, power="stopped")
    assert decide(stop, None, status(ROOT, DATA), memory=plan.Memory(attached=True)) == plan.Detach()
    assert decide(stop, None, status(ROOT, DATA)) == plan.ReleaseDisks(volumes=("ssd/data",))
    assert decide(replace(stop, disks=(ROOT,)), None, status(ROOT)) == plan.ReleaseClaim()


def test_a_guest_is_not_started_again_before_its_removed_disks_are_released():
    assert decide(GOING, None, status(ROOT, DATA)) == plan.ReleaseDisks(volumes=("ssd/data",))


def test_a_claim_that_was_taken_from_a_dead_node_leaves_the_removal_to_the_node_the_vm_is_placed_on():
    stop = replace(GOING, power="stopped")
    vacant = replace(MINE, node="")
    assert decide(stop, None, status(ROOT, DATA), claim=vacant) == plan.ReleaseDisks(volumes=("ssd/data",))
    assert decide(replace(stop, node="b"), None, status(ROOT, DATA), claim=vacant) == plan.Idle()


# --- when nothing is done ---------------------------------------------------------------------------


@pytest.mark.parametrize("phase", list(MigrationPhase))
def test_nothing_is_plugged_or_released_in_a_live_migration(phase):
    record = MigrationRecord(target="b", attempt="m", phase=phase)
    for vm, has in ((with_disks(ROOT, MORE), (ROOT,)), (GOING, (ROOT, DATA)), (GOING, (ROOT,))):
        for me in ("a", "b"):
            action = decide(
                vm, guest(*has), status(ROOT, DATA), me=me, claim=replace(MINE, migration=record), target_alive=True
            )
            assert not isinstance(action, (plan.PlugDisk, plan.UnplugDisk, plan.ReleaseDisks, plan.LimitDisk))
            if isinstance(action, plan.SetStatus):
                assert action.status.running_disks == ("ssd/root", "ssd/data")


@pytest.mark.parametrize("fields", [{"executing": False}, {"transfer": True}])
def test_a_guest_that_stands_still_or_leaves_is_not_changed(fields):
    action = decide(GOING, guest(ROOT, DATA, **fields), status(ROOT, DATA))
    assert not isinstance(action, plan.UnplugDisk)


def test_of_a_guest_that_does_not_say_what_its_disks_are_nothing_is_released_or_plugged():
    unknown = guest(ROOT, DATA)
    unknown = replace(unknown, disks=tuple(replace(has, volume=None) for has in unknown.disks))
    for known in (status(ROOT, DATA), status(ROOT, DATA, guest_disks=None)):
        for vm in (GOING, with_disks(ROOT, DATA, MORE)):
            assert reasons(decide(vm, unknown, known))["Hardware"][0] == "RestartNeeded"


def test_a_guest_of_an_earlier_version_that_was_not_changed_needs_no_restart():
    older = status(ROOT, DATA, guest_disks=None, running_hardware="b7a2f6a6d4f2b1c0")
    assert reasons(decide(VM, guest(ROOT, DATA), older))["Hardware"][0] == "RestartNeeded"
    from pvc_core.model import vm as model  # the fingerprint as that version made it

    older = replace(older, running_hardware=model._fingerprint(VM, model._HARDWARE_AND_DISKS))
    assert decide(VM, guest(ROOT, DATA), older) == plan.Idle()


# --- limits -----------------------------------------------------------------------------------------


def test_limits_are_applied_to_the_running_guest_and_said_then():
    limits = DiskLimits(iops=100)
    vm = with_disks(ROOT, replace(DATA, limits=limits, cache="writeback"))
    begun = said(decide(vm, guest(ROOT, DATA), status(ROOT, DATA)))
    assert begun == status(ROOT, DATA, unsettled=("ssd/data",))
    action = decide(vm, guest(ROOT, DATA), begun)
    # Only the limits: the cache mode waits for a restart.
    assert action == plan.LimitDisk(disk=replace(DATA, limits=limits), target="vdb")
    # Also when they are not wanted any more: they may have been changed.
    taken_back = decide(VM, guest(ROOT, DATA), begun)
    assert taken_back == plan.LimitDisk(disk=DATA, target="vdb")
    done = plan.recorded(begun, action.disk)
    assert reasons(decide(vm, guest(ROOT, DATA), done))["Hardware"][1].count("other settings") == 1


def test_limits_that_cannot_be_changed_are_tried_again():
    vm = with_disks(ROOT, replace(DATA, limits=DiskLimits(iops=1)))
    tried = plan.DeviceTry(what="adjust", first=99.0, last=99.0, error="busy")
    known = status(ROOT, DATA, unsettled=("ssd/data",))
    waits = decide(vm, guest(ROOT, DATA), known, memory=plan.Memory(tries={"ssd/data": tried}))
    assert reasons(waits)["Disks"] == ("LimitFailed", "the limits of ssd/data cannot be changed: busy")


# --- released ---------------------------------------------------------------------------------------


@given(st.integers(0, 3), st.integers(0, 3))
def test_a_release_is_seen_at_once_and_starts_no_guest_that_ended_for_good(observed: int, halted: int):
    vm, known = plan.released(GOING, status(ROOT, DATA, observed_generation=observed, halted=halted), ("ssd/data",))
    assert known is not None
    assert (vm.disks, known.running_disks, known.guest_disks) == ((ROOT,), ("ssd/root",), (ROOT,))
    assert (known.observed_generation == vm.generation) == (observed == GOING.generation)
    assert (known.halted == vm.generation) == (halted == GOING.generation)


# --- schedules --------------------------------------------------------------------------------------

VOLUMES = ("a", "b", "c")


class Schedules(RuleBasedStateMachine):
    """A node, its guest and an operator, in any order; the daemon forgets, its effects come at any time or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.vm = with_disks(ROOT)
        self.status = status(ROOT)
        self.memory = plan.Memory()
        self.running: dict[str, plan.GuestDisk] | None = {}
        self.limits: dict[str, DiskLimits] = {}
        self.asked: set[str] = set()
        self.now = 100.0
        self._boot()

    def _boot(self) -> None:
        disks = kept_disks(self.vm)
        has = (plan.GuestDisk(target=f"vd{'abcdef'[n]}", bus="virtio", volume=d.path) for n, d in enumerate(disks))
        self.running = {d.volume or "": d for d in has}
        self.limits = {d.path: d.limits for d in disks}
        self.asked = set()

    @property
    def bound(self) -> set[str]:
        """Volumes that no other VM can have: their hold is deleted in the transaction that changes the spec."""
        return {d.path for d in self.vm.disks}

    @rule(volume=st.sampled_from(VOLUMES))
    def add(self, volume: str) -> None:
        wanted = disk(volume)
        old = {d.path: d for d in self.vm.disks}
        disks = {**old, wanted.path: replace(old.get(wanted.path, wanted), removing=False)}
        self.vm = replace(self.vm, disks=tuple(disks.values()), generation=self.vm.generation + 1)

    @rule(volume=st.sampled_from(VOLUMES), iops=st.integers(0, 1))
    def limit(self, volume: str, iops: int) -> None:
        limits = DiskLimits(iops=iops)
        disks = tuple(replace(d, limits=limits) if d.volume == volume else d for d in self.vm.disks)
        self.vm = replace(self.vm, disks=disks, generation=self.vm.generation + 1)

    @rule(volume=st.sampled_from(VOLUMES))
    def remove(self, volume: str) -> None:
        disks = tuple(removing(d) if d.volume == volume else d for d in self.vm.disks)
        self.vm = replace(self.vm, disks=disks, generation=self.vm.generation + 1)

    @rule(lost=st.booleans())
    def act(self, lost: bool) -> None:
        """Carry out what is decided now; ``lost``: the daemon dies before it can take note."""
        domain = None
        if self.running is not None:
            domain = plan.DomainView(executing=True, running_for_s=500.0, disks=tuple(self.running.values()))
        action = decide(self.vm, domain, self.status, memory=self.memory, now=self.now)
        match action:
            case plan.SetStatus():
                self.status = action.status
            case plan.StartDomain():
                assert self.status.guest_disks == self.vm.disks
                self._boot()
            case plan.PlugDisk() if self.running is not None:
                has = plan.GuestDisk(target=action.target, bus="virtio", volume=action.disk.path)
                assert has.target not in {d.target for d in self.running.values()}
                self.running[action.disk.path] = has
                self.limits[action.disk.path] = action.disk.limits
            case plan.LimitDisk() if self.running is not None:
                self.limits[action.disk.path] = action.disk.limits
                if not lost:
                    self.status = plan.recorded(self.status, action.disk)
            case plan.UnplugDisk():
                self.asked.add(action.volume)
                tried = plan.DeviceTry(what="unplug", first=self.now, last=self.now)
                self.memory = replace(self.memory, tries={**self.memory.tries, action.volume: tried})
            case plan.ReleaseDisks():
                vm, known = plan.released(self.vm, self.status, action.volumes)
                assert known is not None
                self.vm, self.status = vm, known
        if lost:
            self.memory = plan.Memory()

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        volume = data.draw(st.sampled_from(sorted(self.asked)))
        self.asked.discard(volume)
        if self.running is not None:
            self.running.pop(volume, None)

    @rule()
    def wait(self) -> None:
        self.now += 400.0

    @rule()
    def crash(self) -> None:
        self.running = None
        self.asked = set()

    @invariant()
    def the_status_names_all_that_the_guest_may_write_to(self) -> None:
        assert set(self.running or ()) <= set(self.status.running_disks or ())

    @invariant()
    def no_volume_is_free_that_the_guest_has(self) -> None:
        assert set(self.running or ()) <= self.bound

    def teardown(self) -> None:
        """In the end, with a guest that lets go, all is as wanted."""
        for _ in range(60):
            self.act(lost=False)
            for volume in sorted(self.asked):
                self.asked.discard(volume)
                if self.running is not None:
                    self.running.pop(volume, None)
            self.wait()
        assert set(self.running or ()) == {d.path for d in self.vm.disks}
        assert {d.path: self.limits[d.path] for d in self.vm.disks} == {d.path: d.limits for d in self.vm.disks}
        assert not any(d.removing for d in self.vm.disks)
        assert self.status.conditions == ()


TestSchedules = Schedules.TestCase
