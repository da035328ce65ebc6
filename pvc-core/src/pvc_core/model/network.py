"""Virtual networks."""

from typing import Any

from pvc_core.model.base import Condition, Document


class NetworkSpec(Document, frozen=True, kw_only=True):
    """A network that VMs can be attached to.  What ``parameters`` may hold is the driver's business."""

    id: str
    name: str
    generation: int = 1
    driver: str
    """Name of a network driver, such as ``bridge`` or ``vxlan``."""
    description: str = ""
    mtu: int | None = None
    """None: what the driver finds possible."""
    parameters: dict[str, Any] = {}
    """Values are what JSON has: words, numbers, switches, and lists and objects of them."""
    deleting: bool = False


class NetworkStatus(Document, frozen=True, kw_only=True):
    """A network on one node; its id is ``<network id>@<node>``."""

    id: str
    node: str
    observed_generation: int = 0
    device: str = ""
    mtu: int = 0
    conditions: tuple[Condition, ...] = ()
