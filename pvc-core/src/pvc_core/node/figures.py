"""What this node's guests use: one write per interval, apart from the node's report.

Asking for it may take as long as a guest's storage does not answer: QEMU then answers nothing either.
"""

import logging
from typing import Final

from pvc_core.hypervisor.api import HypervisorError
from pvc_core.model.node import NodeUsage
from pvc_core.node.context import NodeContext
from pvc_core.node.own_document import OwnDocument
from pvc_core.store.keys import usage

log = logging.getLogger(__name__)


class Figures:
    """Reconciler of the key ``("figures", "")``."""

    def __init__(self, context: NodeContext) -> None:
        self._context: Final = context
        self._document: Final = OwnDocument(context, usage(context.name))
        self._had_guests = True

    def reconcile(self, id_: str) -> float | None:  # noqa: ARG002  (there is one node)
        """Write the figures; those of no guests are written once."""
        context = self._context
        try:
            guests = context.hypervisor.usage()
        except HypervisorError as error:
            log.debug("usage-unknown error=%s", error)
            return context.timing.publish
        if guests or self._had_guests:
            self._document.write(NodeUsage(id=context.name, guests=guests, published=context.clock.wall()))
        self._had_guests = bool(guests)
        return context.timing.publish
