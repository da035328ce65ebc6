"""What every hypervisor must do about guests that stand still for a moment; part of ``HypervisorContract``."""

from typing import TYPE_CHECKING

import pytest

from pvc_core.hypervisor.api import AgentUnavailable, Domain, DomainState, HypervisorError

if TYPE_CHECKING:
    from pvc_core.testkit.contracts.hypervisor import HypervisorBench


class StandstillContract:
    """The tests; ``HypervisorContract`` has the fixtures."""

    def test_a_paused_guest_stands_still_until_it_is_resumed(self, bench: "HypervisorBench", vm: str) -> None:
        told: list[str] = []
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        bench.here.watch(told.append)
        bench.here.pause(vm)
        assert _present(bench, vm).state is DomainState.PAUSED
        bench.until(lambda: vm in told, "word of the pause")
        told.clear()
        bench.here.resume(vm)
        assert _present(bench, vm).state is DomainState.RUNNING
        bench.until(lambda: vm in told, "word that it goes on")
        bench.here.shutdown(vm)
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to end")

    def test_pausing_and_resuming_twice_is_success(self, bench: "HypervisorBench", vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.resume(vm)
        bench.here.pause(vm)
        bench.here.pause(vm)
        assert _present(bench, vm).state is DomainState.PAUSED
        bench.here.resume(vm)
        bench.here.resume(vm)
        assert _present(bench, vm).state is DomainState.RUNNING

    def test_a_paused_guest_can_be_ended(self, bench: "HypervisorBench", vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.pause(vm)
        bench.here.destroy(vm)
        assert bench.here.domain(vm) is None

    def test_a_note_is_found_by_the_next_daemon(self, bench: "HypervisorBench", vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        assert _present(bench, vm).note == ""
        bench.here.set_note(vm, "a <note> & more")
        assert _present(bench, vm).note == "a <note> & more"
        bench.here.pause(vm)
        after = bench.reconnect()
        found = after.domain(vm)
        assert found is not None
        assert (found.note, found.state, found.name) == ("a <note> & more", DomainState.PAUSED, "web")
        after.resume(vm)
        after.set_note(vm, "other")
        after.set_note(vm, "")
        after.set_note(vm, "")
        found = after.domain(vm)
        assert found is not None
        assert (found.note, found.state) == ("", DomainState.RUNNING)

    def test_a_note_ends_with_its_domain(self, bench: "HypervisorBench", vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.set_note(vm, "something")
        bench.here.destroy(vm)
        bench.here.start(bench.plan(vm, "web"))
        assert _present(bench, vm).note == ""

    def test_nobody_freezes_a_guest_without_an_agent(self, bench: "HypervisorBench", vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        with pytest.raises(AgentUnavailable):
            bench.here.freeze(vm, 2.0)
        with pytest.raises(AgentUnavailable):
            bench.here.thaw(vm, 2.0)
        assert _present(bench, vm).state is DomainState.RUNNING

    def test_an_absent_domain_neither_pauses_nor_freezes(self, bench: "HypervisorBench", vm: str) -> None:
        for call in (bench.here.pause, bench.here.resume):
            with pytest.raises(HypervisorError):
                call(vm)
        with pytest.raises(HypervisorError):
            bench.here.set_note(vm, "x")
        for ask in (bench.here.freeze, bench.here.thaw):
            with pytest.raises(HypervisorError):
                ask(vm, 1.0)


def _present(bench: "HypervisorBench", vm: str) -> Domain:
    domain = bench.here.domain(vm)
    assert domain is not None
    return domain
