"""What operations work with."""

import secrets
import time
import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pvc_core.plan.placement import CORE_POLICY, Policy
from pvc_core.store.api import Store

Validator = Callable[..., Iterable[str] | None]
"""Pure check of the parameters of a pool, network or fence device: raises InvalidRequest, or returns warnings.

That of networks may take a second argument: the other networks of the driver.
"""

ValidatorLookup = Callable[[str], Validator | None]
"""Driver name -> its validator, or None when this machine knows none (the plugin is not installed here)."""


def no_validators(driver: str) -> Validator | None:
    """Know no driver: parameters are then checked by the nodes only."""
    del driver
    return None


class Ops(NamedTuple):
    """Where operations happen.  Immutable; may be shared by threads as far as the store may."""

    store: Store
    wall: Callable[[], float] = time.time
    """Seconds since the epoch: for display only."""
    monotonic: Callable[[], float] = time.monotonic
    validators: ValidatorLookup = no_validators
    nic_validators: ValidatorLookup = no_validators
    """Driver -> check of a NIC in a network of it: ``function(network, nic)``."""
    policy: Policy = CORE_POLICY
    """Selectors, filters and weighers beyond those of core; the default selector is the cluster's."""
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
