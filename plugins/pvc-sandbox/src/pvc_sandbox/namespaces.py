"""Being in another network namespace for a moment, to open a socket there."""

from pathlib import Path
from typing import Final

from pvc_core.testkit.lan import entered

__all__ = ["NAMED", "entered"]

NAMED: Final = Path("/run/netns")
"""Where ``ip netns`` keeps named namespaces."""
