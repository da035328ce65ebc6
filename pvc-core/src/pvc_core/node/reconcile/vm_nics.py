"""Carries out what ``plan.vm.nics`` decides about the NICs of a running guest, and frees those that were taken from a VM."""

import logging
from typing import Final
from xml.etree import ElementTree as ET

from msgspec.structs import replace

from pvc_core.hypervisor.nicxml import render_nic
from pvc_core.model.vm import NO_NIC_LIMITS, Nic
from pvc_core.node.reconcile import resources
from pvc_core.node.reconcile.vm_devices import Devices, same_claim
from pvc_core.node.reconcile.vm_view import VmDocuments
from pvc_core.ops.context import Ops
from pvc_core.ops.vm_resources import read_resources, reference_operations
from pvc_core.plan import vm as plan
from pvc_core.plugin.errors import NotReady, Unsupported
from pvc_core.plugin.specs.network import NicSource
from pvc_core.store.api import Operation

log = logging.getLogger(__name__)

ACTIONS: Final = (plan.PlugNic, plan.UnplugNic, plan.AdjustNic, plan.ReleaseNics)


class VmNics:
    """Changes NICs; each call is one effect, or one transaction.  What fails is tried again after a pause, and told.

    Calls for one VM must not overlap; for different VMs they may.
    """

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._c = devices.context

    def do(self, id_: str, action: plan.Action, s: plan.Snapshot, read: VmDocuments) -> None:
        """Carry one of ``ACTIONS`` out."""
        match action:
            case plan.PlugNic():
                self._devices.attempt(id_, "plug", action.nic.mac, s, lambda: self._plug(id_, action.nic, s))
            case plan.UnplugNic():
                self._devices.ask(id_, action.nic.mac, s, f"<interface><mac address='{action.nic.mac}'/></interface>")
            case plan.AdjustNic():
                self._devices.attempt(id_, "adjust", action.nic.mac, s, lambda: self._adjust(id_, action, s, read))
            case plan.ReleaseNics() if s.domain is None:
                self._release(id_, action, s, read)
            case plan.ReleaseNics():
                # Its guest has other needs, which are not to wait for the network of a NIC that it does not have any more.
                self._devices.attempt(id_, "release", action.macs[0], s, lambda: self._release(id_, action, s, read))
            case _:
                raise AssertionError(f"no way to carry out {action}")

    # --- the guest ----------------------------------------------------------------------------------

    def _plug(self, id_: str, nic: Nic, s: plan.Snapshot) -> None:
        ((network, _),) = self._needs(s, (nic,)).networks
        if not self._c.drivers.network(network.driver).network_capabilities().hot_plug:
            raise Unsupported(
                f"driver {network.driver} of network {network.name} gives no NIC to a guest that runs: restart the VM"
            )
        source = self._attach(id_, nic, s)
        self._devices.plug(id_, s, ET.tostring(render_nic(nic, source), encoding="unicode"))
        log.info("nic-plugged vm=%s mac=%s network=%s", id_, nic.mac, nic.network)

    def _attach(self, id_: str, nic: Nic, s: plan.Snapshot) -> NicSource:
        """Have the network's driver prepare a NIC, and remember that it did."""
        needs = self._needs(s, (nic,))
        unready = resources.unready_network(self._c.store, needs, self._c.name)
        if unready:
            raise NotReady(unready)
        ((network, _),) = needs.networks
        self._devices.attached[id_] = self._devices.held(id_, s).with_nics(needs.networks)
        return self._c.drivers.network(network.driver).nic_attach(network, nic, id_, False)

    def _adjust(self, id_: str, action: plan.AdjustNic, s: plan.Snapshot, read: VmDocuments) -> None:
        assert s.status is not None
        new = action.nic
        # The driver may keep to the NIC's addresses what comes from it.
        source = self._attach(id_, new, s)
        # A NIC that is passed through has neither: asked for all the same, libvirt says that it cannot.
        if source.has_model or new.limits != NO_NIC_LIMITS:
            self._c.hypervisor.limit_nic(id_, new.mac, new.limits)
        if source.has_model or not new.link_up:
            self._c.hypervisor.set_link(id_, new.mac, up=new.link_up)
        self._devices.writes.status(id_, plan.recorded_nic(s.status, new), read)
        log.info("nic-changed vm=%s mac=%s link_up=%s", id_, new.mac, new.link_up)

    # --- freeing ------------------------------------------------------------------------------------

    def _release(self, id_: str, action: plan.ReleaseNics, s: plan.Snapshot, read: VmDocuments) -> None:
        assert s.vm is not None
        assert read.vm is not None
        if s.claim is not None and s.claim.node == s.me:
            # Without the claim nothing of it can be attached here: it is detached before the claim is given up.
            for network, nic in self._needs(s, tuple(nic for nic in s.vm.nics if nic.mac in action.macs)).networks:
                self._c.drivers.network(network.driver).nic_detach(network, nic, id_)
            held = self._devices.attached.get(id_)
            if held is not None:
                self._devices.attached[id_] = held.without_nics(action.macs)
        old = read.vm.value
        status = read.status.value if read.status is not None else None
        vm, said = plan.released_nics(old, status, action.macs)
        ops = Ops(self._c.store, wall=self._c.clock.wall, monotonic=self._c.clock.monotonic)
        freed = reference_operations(vm, old, read_resources(ops, old))
        writes: list[Operation] = [read.vm.put(vm), *freed, same_claim(id_, read)]
        if read.status is not None and said is not None:
            writes.append(read.status.put(said))
        self._devices.writes.commit(*writes)
        self._devices.forget(id_, action.macs)
        log.info("nics-released vm=%s macs=%s", id_, ",".join(action.macs))

    def _needs(self, s: plan.Snapshot, nics: tuple[Nic, ...]) -> resources.Resources:
        assert s.vm is not None
        return resources.find(self._c.store, replace(s.vm, disks=(), nics=nics))
