"""By what the host's routes to client networks are known: the gateway makes them, FRR announces them."""

from typing import Final

PROTOCOL: Final = 250
"""Who made them (rtnetlink(7), rtm_protocol; free for administrators)."""
METRIC: Final = 7250
"""FRR tells them from all others of the kernel by it: so a network that comes or goes changes nothing in FRR."""
