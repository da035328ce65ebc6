"""This node's place in the fabric: what its FRR is to do, from the node's configuration."""

from ipaddress import ip_address
from pathlib import Path
from typing import Final

from pvc_core.model.base import Condition
from pvc_core.plugin import ConfigError, Context
from pvc_vxlan.config import VxlanConfig
from pvc_vxlan.evpn.frr import Frr
from pvc_vxlan.evpn.render import Fabric, Peer, Router, router_id
from pvc_vxlan.evpn.state import Session, vnis
from pvc_vxlan.evpn.watch import ROUTING, Watch
from pvc_vxlan.overlay import Underlay


class FabricMember:
    """Keeps FRR as the configuration wants it.  ``tend`` is called by one thread; the rest may be read by any."""

    def __init__(self, context: Context, config: VxlanConfig) -> None:
        self._node: Final = context.node
        self._config: Final = config
        self.frr: Final = Frr(context.run, config, state=Path(context.node.state_directory) / "vxlan")
        self._watch: Final = Watch(self.frr, context.log)
        self.evpn: Final = config.control == "evpn"
        """FRR tells who is where; else it is only needed for routers outside."""
        self.conditions: tuple[Condition, ...] = ()
        """What was found the last time."""
        self.sessions: tuple[Session, ...] = ()

    @property
    def needs_frr(self) -> bool:
        """Whether FRR has anything to do on this node."""
        return self.evpn or (self._node.role == "coordinator" and bool(self._config.upstream))

    def tend(self, underlay: Underlay) -> None:
        """Look after FRR: start it, give it its configuration, see who answers.  Takes 10 s when it must be started."""
        if not self.needs_frr:
            return
        try:
            fabric = self.wanted(underlay)
        except ConfigError as error:
            self.conditions = (Condition(type=ROUTING, ok=False, reason="Misconfigured", message=str(error)),)
            return
        report = self._watch.tend(fabric)
        self.conditions, self.sessions = report.conditions, report.sessions

    def wanted(self, underlay: Underlay) -> Fabric:
        """Return what FRR of this node is to do; raises ConfigError for what it cannot."""
        config, node = self._config, self._node
        coordinators = self.reflectors() if self.evpn else {}
        reflectors = tuple(Peer(name=name, address=address) for name, address in sorted(coordinators.items()))
        is_reflector = node.name in coordinators
        for peer in reflectors:
            if ip_address(peer.address).version != ip_address(underlay.address).version:
                raise ConfigError(
                    f"vtep {underlay.address} and the route reflector {peer.name} ({peer.address}) are of different versions of "
                    "IP: give the reflectors' addresses in the underlay (reflectors)"
                )
        return Fabric(
            asn=config.asn,
            evpn=self.evpn,
            router_id=router_id(underlay.address),
            local=underlay.address,
            reflectors=reflectors,
            is_reflector=is_reflector,
            listen=(config.fabric or (underlay.prefix,)) if is_reflector else (),
            password=_password(config.password_file),
            upstream=tuple(
                Router(address=router.address, asn=router.asn, password=_password(router.password_file))
                for router in config.upstream
            )
            if node.role == "coordinator"
            else (),
        )

    def named(self) -> dict[str, tuple[str, ...]]:
        """Return the ends of tunnels that EVPN names, by device; nothing while FRR does not have the whole truth."""
        if not self.evpn or not self.conditions or not all(condition.ok for condition in self.conditions[:2]):
            return {}
        return {vni.device: vni.remote for vni in vnis(self.frr.show("show evpn vni json"))}

    def reflectors(self) -> dict[str, str]:
        """Return the coordinators' addresses in the underlay, by name."""
        return self._config.reflectors or self._node.coordinator_addresses


def _password(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"password_file: cannot read {path}: {error}") from error
