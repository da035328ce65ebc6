"""What every hypervisor must do about the NICs of running guests; part of ``HypervisorContract``."""

import contextlib
import uuid
from typing import TYPE_CHECKING, get_args

import pytest

from pvc_core.hypervisor.api import Domain, Hypervisor, HypervisorError, MigrationOptions
from pvc_core.model.vm import NO_NIC_LIMITS, Nic, NicLimits, NicModel

if TYPE_CHECKING:
    from pvc_core.testkit.contracts.hypervisor import HypervisorBench

_MAC = "52:54:00:aa:00:01"
_UNPLUG = f"<interface><mac address='{_MAC}'/></interface>"


def _nic(**fields: object) -> Nic:
    return Nic(**({"network": "lan", "mac": _MAC} | fields))  # type: ignore[arg-type]


class NicContract:
    """The tests; ``HypervisorContract`` has the fixtures."""

    def test_a_nic_that_is_plugged_in_goes_where_the_guest_goes(self, bench: "HypervisorBench", vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.booted(vm)
        assert _present(bench.here, vm).nics == ()
        bench.here.attach_device(vm, bench.spare_nic(_nic(limits=NicLimits(in_average=100))))
        other = "52:54:00:aa:00:02"
        bench.here.attach_device(vm, bench.spare_nic(_nic(mac=other)))
        assert _present(bench.here, vm).nics == (_MAC, other)
        bench.here.set_link(vm, other, up=False)
        admission = bench.there.admit(vm, uuid.uuid4().hex, bench.console_log(vm))
        bench.here.migrate(vm, MigrationOptions(target_address=bench.there_address, admission=admission, unsafe=True))
        bench.until(lambda: bench.here.domain(vm) is None, "the guest to leave")
        assert _present(bench.there, vm).nics == (_MAC, other)
        bench.there.set_link(vm, other, up=True)
        bench.there.limit_nic(vm, _MAC, NO_NIC_LIMITS)

    @pytest.mark.parametrize("model", get_args(NicModel))
    def test_every_model_can_be_plugged_in(self, bench: "HypervisorBench", vm: str, model: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.attach_device(vm, bench.spare_nic(_nic(model=model, link_up=False)))
        assert _present(bench.here, vm).nics == (_MAC,)
        assert bench.nic(vm, _MAC) == (False, NO_NIC_LIMITS)

    def test_a_nic_is_not_plugged_in_twice(self, bench: "HypervisorBench", vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.attach_device(vm, bench.spare_nic(_nic()))
        with pytest.raises(HypervisorError):
            bench.here.attach_device(vm, bench.spare_nic(_nic()))
        assert _present(bench.here, vm).nics == (_MAC,)

    def test_a_guest_that_never_heard_of_it_keeps_a_nic_and_is_asked_again(
        self, bench: "HypervisorBench", vm: str
    ) -> None:
        bench.here.start(bench.plan(vm, "web", deaf=True))
        bench.booted(vm)
        bench.keeps_devices(vm)
        bench.here.attach_device(vm, bench.spare_nic(_nic()))
        bench.here.detach_device(vm, _UNPLUG)
        with contextlib.suppress(HypervisorError):  # some QEMUs refuse a second request before the first is answered
            bench.here.detach_device(vm, _UNPLUG)
        assert _present(bench.here, vm).nics == (_MAC,)

    def test_limits_of_a_nic_are_changed_and_lifted(self, bench: "HypervisorBench", vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        bench.here.attach_device(vm, bench.spare_nic(_nic()))
        for limits in (
            NicLimits(in_average=1000),
            NicLimits(in_average=2000, in_peak=4000, in_burst=512),
            NicLimits(in_average=500),
            NO_NIC_LIMITS,
            NO_NIC_LIMITS,
        ):
            bench.here.limit_nic(vm, _MAC, limits)
            assert bench.nic(vm, _MAC) == (True, limits)

    def test_a_link_is_cut_and_comes_back_and_limits_stay(self, bench: "HypervisorBench", vm: str) -> None:
        limits = NicLimits(in_average=1000)
        bench.here.start(bench.plan(vm, "web"))
        bench.here.attach_device(vm, bench.spare_nic(_nic(limits=limits)))
        for up in (True, False, False, True):
            bench.here.set_link(vm, _MAC, up=up)
            assert bench.nic(vm, _MAC) == (up, limits)

    def test_only_a_nic_that_exists_is_changed(self, bench: "HypervisorBench", vm: str) -> None:
        bench.here.start(bench.plan(vm, "web"))
        with pytest.raises(HypervisorError, match=f"no NIC {_MAC}: it has none"):
            bench.here.set_link(vm, _MAC, up=False)
        with pytest.raises(HypervisorError, match=f"no NIC {_MAC}: it has none"):
            bench.here.limit_nic(vm, _MAC, NO_NIC_LIMITS)


def _present(hypervisor: Hypervisor, vm: str) -> Domain:
    domain = hypervisor.domain(vm)
    assert domain is not None
    return domain
