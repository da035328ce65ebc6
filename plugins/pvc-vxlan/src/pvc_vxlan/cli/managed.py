"""A managed network for commands: read, one of its lists changed, and the wait until its nodes have taken that over."""

import time
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from pvc_core.model.errors import Conflict, InvalidRequest, PvcError, Unavailable
from pvc_core.plugin.cli import Client, Output
from pvc_vxlan.network import Reservation, Rule, VxlanNetwork, typed

_TRIES: Final = 5
"""Attempts to change a network while others change it too."""
_LOOK_S: Final = 0.2

T = TypeVar("T", Rule, Reservation)


class Managed(NamedTuple):
    """A managed network as it was read."""

    id: str
    name: str
    generation: int
    parameters: VxlanNetwork


def read(client: Client, network: str, what: str) -> Managed:
    """Return a network; raises InvalidRequest, which says ``what`` only managed ones have, for one of another driver."""
    view = client.call("network.info", network=network).view
    if view.driver != "vxlan":
        raise InvalidRequest(
            f"network {view.name} is of driver {view.driver}; only networks of driver vxlan have {what}"
        )
    try:
        parameters = typed(view.parameters)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the parameters of network {view.name} are not those of driver vxlan: {error}") from error
    return Managed(view.id, view.name, view.generation, parameters)


def change(
    client: Client,
    network: str,
    what: str,
    field: Literal["rules", "reservations"],
    new: Callable[[tuple[T, ...]], tuple[T, ...]],
    *,
    check: Callable[[Managed], None] = lambda _: None,
) -> Managed:
    """Change a list of a network, again from the beginning when somebody else changed the network meanwhile.

    ``check`` is given the network as it is to be, before anything is changed.
    """
    for left in reversed(range(_TRIES)):
        found = read(client, network, what)
        items = new(getattr(found.parameters, field))
        wanted = found._replace(parameters=replace(found.parameters, **{field: items}))
        check(wanted)
        plain = msgspec.to_builtins(list(items))
        try:
            client.call(
                "network.modify", network=found.id, generation=found.generation, parameters={field: plain or None}
            )
        except Conflict:
            if not left:
                raise
        else:
            return wanted
    raise AssertionError("the last try returns or raises")


def ask_gateway(client: Client, query: str, network: Managed, **arguments: Any) -> Any:
    """Ask the node that has the network's gateway; raises PvcError."""
    primary = client.call("primary.info").node
    if not primary:
        raise Unavailable("no coordinator is primary")
    return client.ask(query, primary, network=network.id, **arguments)


def settle(client: Client, out: Output, network: Managed, *, wait: bool, timeout: float) -> None:
    """Wait until every node has the network as it is now, and tell what is wrong with it there.

    Raises Unavailable when that takes longer than ``timeout`` seconds; it is done all the same.
    """
    if not wait:
        return
    end = time.monotonic() + timeout
    while True:
        view = client.call("network.info", network=network.id).view
        if view.nodes_ready >= view.nodes:
            break
        if time.monotonic() > end:
            raise Unavailable(
                f"network {network.name} is changed, and after {timeout:g} s {view.nodes_ready} of {view.nodes} nodes have "
                f"taken it over: see pvc network info {network.name}"
            )
        time.sleep(_LOOK_S)
    for problem in view.problems:
        out.warn(problem)


def note_unknown(out: Output, what: str, error: Exception) -> None:
    """Say that something cannot be told now, which is no reason to tell nothing."""
    said = str(error) if isinstance(error, PvcError) else f"the answer is not understood ({error})"
    out.note(f"{what} are not known now: {said}")
