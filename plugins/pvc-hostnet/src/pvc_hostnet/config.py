"""The plugin's section of ``pvcnoded.yml``."""

from typing import Annotated

from msgspec import Meta, Struct

from pvc_hostnet.rules import problems
from pvc_hostnet.section import NAMES, NetworkSection


class HostnetConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The networks of this node."""

    number: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Of this node, for addresses by number. Empty: the digits at the end of the node's name."),
    ] = None
    upstream: Annotated[NetworkSection | None, Meta(description="Towards the rest of the world.")] = None
    cluster: Annotated[NetworkSection | None, Meta(description="Between the nodes: state store, migrations.")] = None
    storage: Annotated[NetworkSection | None, Meta(description="Between the nodes: traffic of the storage.")] = None

    def __post_init__(self) -> None:
        """Raise ValueError, which decoding tells as a problem of the section."""
        if found := problems(self.networks(), self.number):
            raise ValueError("; ".join(found))

    def networks(self) -> dict[str, NetworkSection]:
        """Return the networks that are given, by their names."""
        given = {name: getattr(self, name) for name in NAMES}
        return {name: section for name, section in given.items() if section is not None}
