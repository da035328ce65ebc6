"""What stands still for another reason than a pause is not resumed."""

import pytest

from pvc_core.hypervisor.api import DomainPlan, DomainState, HypervisorError, MigrationOptions
from pvc_core.hypervisor.memory import MemoryWorld
from pvc_core.model.vm import VmSpec
from pvc_core.testkit.simulator.clock import VirtualClock


@pytest.fixture
def world():
    world = MemoryWorld(VirtualClock())
    world.here, world.there = world.host("hv1", "10.0.0.1"), world.host("hv2", "10.0.0.2")
    world.here.start(DomainPlan(vm=VmSpec(id="a", name="a", memory_mib=64, vcpus=1), disks=(), nics=()))
    return world


def move(world, seconds):
    admission = world.there.admit("a", "1", "")
    world.here.migrate("a", MigrationOptions(target_address="10.0.0.2", admission=admission))
    clock = world._clock
    clock.move_to(clock.monotonic() + seconds)
    world.advance()


def test_the_copy_that_a_migration_left_is_not_resumed(world):
    world.vm_faults("a").migration_unconfirmed = True
    move(world, 10.0)
    assert world.present("a") == {"hv1": DomainState.PAUSED, "hv2": DomainState.RUNNING}
    with pytest.raises(HypervisorError, match="stands still for another reason"):
        world.here.resume("a")
    assert world.running("a") == ["hv2"]


def test_the_half_of_a_guest_that_is_on_its_way_is_neither_paused_nor_resumed(world):
    move(world, 0.5)
    with pytest.raises(HypervisorError, match="it does not run yet"):
        world.there.pause("a")
    with pytest.raises(HypervisorError, match="stands still for another reason"):
        world.there.resume("a")
    assert world.present("a") == {"hv1": DomainState.RUNNING, "hv2": DomainState.INCOMING}


def test_a_paused_guest_is_not_migrated(world):
    world.here.pause("a")
    with pytest.raises(HypervisorError, match="only a running domain migrates"):
        move(world, 0.5)
