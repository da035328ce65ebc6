"""``pvc storage osd in``, ``out`` and ``refresh``."""

from typing import Any

import click

from pvc_ceph.cli.osd_ask import give, known, listing
from pvc_ceph.osd.risks import without
from pvc_core.plugin.cli import format_option, session, wait_options, yes_option


@click.command("in")
@click.argument("osds", type=int, nargs=-1, required=True)
@wait_options()
@format_option
def in_(osds: tuple[int, ...], wait: bool, timeout: float) -> None:
    """Let data be placed on OSDs again."""
    found = listing(session().client)
    for id_ in osds:
        known(found, id_)
    _give("in", found.answered_by, osds, wait=wait, timeout=timeout)


@click.command()
@click.argument("osds", type=int, nargs=-1, required=True)
@yes_option
@wait_options()
@format_option
def out(osds: tuple[int, ...], yes: bool, wait: bool, timeout: float) -> None:
    """Let the data of OSDs move to others; they go on running."""
    call = session()
    found = listing(call.client)
    for id_ in osds:
        known(found, id_)
    warnings = without(found, osds)
    for text in warnings:
        call.out.warn(text)
    if warnings:
        call.confirm(f"put OSD {', '.join(map(str, osds))} out all the same?", yes=yes)
    _give("out", found.answered_by, osds, wait=wait, timeout=timeout)


@click.command()
@click.argument("node")
@click.option("--moved", is_flag=True, help="Also OSDs of other nodes that are down: their disks were carried to NODE.")
@wait_options(None)
@format_option
def refresh(node: str, moved: bool, wait: bool, timeout: float) -> None:
    """Let all OSDs of NODE that are on its disks run again, after it was installed anew.

    Disks with OSDs of another cluster, or of another node, are left alone.
    """
    give(
        "refresh",
        node,
        f"node {node}",
        {"moved": moved},
        lambda result: _refreshed(node, result),
        wait=wait,
        timeout=timeout,
    )


def _refreshed(node: str, result: dict[str, Any]) -> str:
    call = session()
    if result["refused"]:
        call.out.warn(f"left alone: {result['refused']}")
    if not result["osds"]:
        return f"node {node}: no OSD of this cluster was found on its disks"
    return f"node {node}: OSD {result['osds']} up"


def _give(word: str, node: str, osds: tuple[int, ...], *, wait: bool, timeout: float) -> None:
    names = ", ".join(map(str, osds))
    arguments = {"osds": [str(id_) for id_ in osds]}
    give(word, node, f"OSD {names}", arguments, lambda _: f"OSD {names} is {word}", wait=wait, timeout=timeout)
