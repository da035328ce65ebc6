"""Checks of pools and networks against the drivers that the cluster's nodes have."""

from collections.abc import Mapping
from typing import Literal, TypeVar

from msgspec.structs import replace

from pvc_core.model.errors import InvalidRequest, NoNodeFits, PvcError
from pvc_core.model.names import did_you_mean
from pvc_core.model.network import NetworkSpec
from pvc_core.model.storage import PoolSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.snapshot import NodeFacts

S = TypeVar("S", PoolSpec, NetworkSpec)
Parameter = str | int | bool | list[str]


def check_driver(kind: Literal["storage", "network"], driver: str, nodes: Mapping[str, NodeFacts]) -> None:
    """Check that some node offers a driver, or did when it last reported; raises InvalidRequest."""
    offered = sorted(
        {
            word.partition(":")[2]
            for facts in nodes.values()
            if facts.status is not None
            for word in facts.status.capabilities()
            if word.startswith(f"{kind}:")
        }
    )
    if driver not in offered:
        raise InvalidRequest(
            f"no node has a working {kind} driver {driver!r}{did_you_mean(driver, offered)}; "
            f"nodes offer {', '.join(offered) or 'none'}: enable the plugin in pvcnoded.yml, or see why it does not work "
            "with 'pvc plugin list'"
        )


def check_parameters(ops: Ops, spec: PoolSpec | NetworkSpec) -> None:
    """Let the driver's own check see the parameters, where its plugin is installed; raises InvalidRequest."""
    validate = ops.validators(spec.driver)
    if validate is None:
        return
    try:
        validate(spec)
    except PvcError:
        raise
    except Exception as error:  # a plugin's: a broken check must not let unchecked parameters through
        raise InvalidRequest(
            f"the check of driver {spec.driver!r} failed ({type(error).__name__}: {error}); nothing was changed"
        ) from error


def merged(spec: S, changes: Mapping[str, Parameter | None]) -> S:
    """Return a spec with parameters set, or removed where None; raises InvalidRequest for one that is not there."""
    parameters = dict(spec.parameters)
    for name, value in changes.items():
        if value is not None:
            parameters[name] = value
        elif parameters.pop(name, None) is None:
            raise InvalidRequest(f"{spec.name!r} has no parameter {name!r}{did_you_mean(name, spec.parameters)}")
    return replace(spec, parameters=parameters)


def choose_by_driver(nodes: Mapping[str, NodeFacts], driver: str, busy: Mapping[str, int], purpose: str) -> str:
    """Return the ready node with a working storage driver that is least busy; raises NoNodeFits."""
    reasons: dict[str, str] = {}
    fitting: list[str] = []
    for name, facts in sorted(nodes.items()):
        # A node that is drained or in maintenance can still carry out changes of storage, but others come first.
        reason = "" if facts.alive and facts.status is not None and facts.status.daemon == "running" else "not alive"
        if not reason and facts.status is not None and f"storage:{driver}" not in facts.status.capabilities():
            reason = f"it has no working storage driver {driver}"
        if reason:
            reasons[name] = reason if reason != "not alive" else facts.not_ready()
        else:
            fitting.append(name)
    if not fitting:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "the cluster has no nodes"
        raise NoNodeFits(f"no node can {purpose}: {why}", reasons)
    return min(fitting, key=lambda name: (bool(nodes[name].not_ready()), busy.get(name, 0), name))
