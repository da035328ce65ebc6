"""Checks of pools, networks and fence devices against the drivers that the cluster's nodes have."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from msgspec.structs import replace

from pvc_core.model.errors import InvalidRequest, NoNodeFits, PvcError
from pvc_core.model.fence import FenceDevice
from pvc_core.model.names import did_you_mean
from pvc_core.model.network import NetworkSpec
from pvc_core.model.storage import PoolSpec
from pvc_core.model.vm import Nic
from pvc_core.ops.context import Ops
from pvc_core.ops.snapshot import NodeFacts, offered

S = TypeVar("S", PoolSpec, NetworkSpec)


def check_driver(kind: Literal["storage", "network"], driver: str, nodes: Mapping[str, NodeFacts]) -> None:
    """Check that some node offers a driver, or did when it last reported; raises InvalidRequest."""
    known = sorted(offered(nodes, kind))
    if driver not in known:
        raise InvalidRequest(
            f"no node has a working {kind} driver {driver!r}{did_you_mean(driver, known)}; "
            f"nodes offer {', '.join(known) or 'none'}: enable the plugin in pvcnoded.yml, or see why it does not work "
            "with 'pvc plugin list'"
        )


def check_parameters(
    ops: Ops, spec: PoolSpec | NetworkSpec | FenceDevice, others: Sequence[NetworkSpec] = ()
) -> tuple[str, ...]:
    """Let the driver's own check see the parameters, where its plugin is installed; return what it warns of.

    ``others``: the other networks of its driver.  Raises InvalidRequest.
    """
    validate = ops.validators(spec.driver)
    if validate is None:
        return ()
    try:
        sees_others = isinstance(spec, NetworkSpec) and len(inspect.signature(validate).parameters) > 1
        return tuple((validate(spec, list(others)) if sees_others else validate(spec)) or ())
    except PvcError:
        raise
    except Exception as error:  # a plugin's: a broken check must not let unchecked parameters through
        raise InvalidRequest(
            f"the check of driver {spec.driver!r} failed ({type(error).__name__}: {error}); nothing was changed"
        ) from error


def check_nic(ops: Ops, network: NetworkSpec, nic: Nic) -> None:
    """Let the driver's own check see a NIC that a VM is to have in a network, where its plugin is installed.

    Raises InvalidRequest.
    """
    validate = ops.nic_validators(network.driver)
    if validate is None:
        return
    try:
        validate(network, nic)
    except PvcError:
        raise
    except Exception as error:  # a plugin's, as above
        raise InvalidRequest(
            f"the check of driver {network.driver!r} failed ({type(error).__name__}: {error}); nothing was changed"
        ) from error


def merged(spec: S, changes: Mapping[str, Any]) -> S:
    """Return a spec with parameters set, or removed where None; raises InvalidRequest for one that is not there."""
    parameters = dict(spec.parameters)
    for name, value in changes.items():
        if value is not None:
            parameters[name] = value
        elif parameters.pop(name, None) is None:
            raise InvalidRequest(f"{spec.name!r} has no parameter {name!r}{did_you_mean(name, spec.parameters)}")
    return replace(spec, parameters=parameters)


def choose_by_drivers(
    nodes: Mapping[str, NodeFacts], drivers: Sequence[str], purpose: str, busy: Mapping[str, int] | None = None
) -> str:
    """Return the ready node with these working storage drivers that is least busy; raises NoNodeFits."""
    reasons: dict[str, str] = {}
    fitting: list[str] = []
    for name, facts in sorted(nodes.items()):
        # A node that is drained or in maintenance can still carry out changes of storage, but others come first.
        if not facts.alive or facts.status is None or facts.status.daemon != "running":
            reasons[name] = facts.not_ready()
        elif missing := [driver for driver in drivers if not facts.offers(f"storage:{driver}")]:
            reasons[name] = f"it has no working storage driver {missing[0]}"
        else:
            fitting.append(name)
    if not fitting:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "the cluster has no nodes"
        raise NoNodeFits(f"no node can {purpose}: {why}", reasons)
    return min(fitting, key=lambda name: (bool(nodes[name].not_ready()), (busy or {}).get(name, 0), name))
