"""Names of the cluster's objects, completed while somebody types.

Silent and quick: when the cluster does not answer within a second there are no words, and no message.
"""

from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from pvc_core.cli.session import session_of

_SHORT_S: Final = 1.0


class ObjectName(click.ParamType[str]):
    """The name of an object of a kind of the store: ``vm``, ``network``, ``pool``, ``volume``, ``node``, ``task``."""

    def __init__(self, kind: str) -> None:
        self.name = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as it is; the operation says whether there is such an object."""
        del param, ctx
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """Return the names that begin with what is typed."""
        del param
        try:
            known = _names(ctx, self.name)
        except Exception:  # somebody is typing: nothing may be printed, whatever is wrong
            known = []
        return [CompletionItem(name) for name in known if name.startswith(incomplete)]


def _names(ctx: click.Context, kind: str) -> list[str]:
    from pvc_core.store import keys

    client = session_of(ctx).quick_client(_SHORT_S)
    if kind == "node":
        return client.store.children(f"{keys.SPEC}/node")
    if kind == "task":
        return client.store.children(keys.TASK)
    names = client.store.children(f"{keys.NAME}/{kind}")
    return [keys.volume_path(name) for name in names] if kind == "volume" else names


VM: Final = ObjectName("vm")
NODE: Final = ObjectName("node")
NETWORK: Final = ObjectName("network")
POOL: Final = ObjectName("pool")
VOLUME: Final = ObjectName("volume")
TASK: Final = ObjectName("task")
