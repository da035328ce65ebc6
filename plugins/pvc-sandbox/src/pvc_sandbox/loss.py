"""The course of a node's loss, told while it happens."""

from functools import partial
from typing import Any, Final

from pvc_sandbox.sandbox import Sandbox
from pvc_sandbox.screen import Stopwatch

_PATIENCE_S: Final = 120.0


def follow_loss(sandbox: Sandbox, node: str, watch: Stopwatch) -> None:
    """Tell, with the seconds of ``watch``, what the cluster does about a node that is lost, until its VMs are free.

    The loss must be younger than ``watch``.  Raises SandboxError when there is no news for two minutes.
    """
    told, stage = 0, ""
    while stage != "recovered":
        news = partial(_news, sandbox, node, watch.begun, told)
        record = watch.wait(f"the fencing of {node} goes on", news, deadline_s=_PATIENCE_S)
        events, stage = record["events"], record["stage"]
        for event in events[told:]:
            watch.tell(f"{event['stage']}: {event['message']}", event["at"])
        told = len(events)


def _news(sandbox: Sandbox, node: str, since: float, told: int) -> dict[str, Any]:
    """Return the record of a node's loss when it has more events than ``told``; empty before."""
    losses = {row["node"]: row["opened"] for row in sandbox.pvc.rows("fence", "list")}
    if losses.get(node, 0.0) < since:
        return {}
    record: dict[str, Any] = sandbox.pvc.json("fence", "info", node)["record"]
    return record if len(record["events"]) > told else {}
