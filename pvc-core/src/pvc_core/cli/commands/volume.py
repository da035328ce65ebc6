"""`pvc storage volume list`, `info`, `add`, `resize`, `rename`, `clone`, `remove`.

A volume is written `pool/volume`.
"""

import click

from pvc_core.cli import words
from pvc_core.cli.complete import POOL, VM, VOLUME
from pvc_core.cli.options import Size, force_space_option, format_option, wait_options, yes_option
from pvc_core.cli.output import Block, Cell, Column, Line, Sheet
from pvc_core.cli.progress import watching
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.sheets import conditions
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.storage import VolumeState
from pvc_core.model.units import format_bytes
from pvc_core.ops.pool_space import space_warning
from pvc_core.ops.volume import (
    VolumeAdd,
    VolumeClone,
    VolumeList,
    VolumeQuery,
    VolumeRename,
    VolumeResize,
    VolumeView,
    volume_add,
    volume_clone,
    volume_info,
    volume_list,
    volume_remove,
    volume_rename,
    volume_resize,
)
from pvc_core.ops.wait import ObjectGoal, wait_volume


def split(volume: str) -> tuple[str, str]:
    """Return pool and name of ``pool/volume``; raise InvalidRequest for anything else."""
    pool, slash, name = volume.partition("/")
    if not (pool and slash and name) or "/" in name:
        raise InvalidRequest(f"{volume!r} is not a volume: write pool/volume, such as ssd/web1")
    return pool, name


def path(volume: VolumeView) -> str:
    """Return a volume as people write it."""
    return f"{volume.pool}/{volume.name}"


def warn_of_space(session: Session, pool: str, *, force: bool) -> None:
    """Warn when a pool is promised beyond its limit after something was forced into it."""
    if force and (warning := space_warning(session.client.ops, pool)):
        session.out.warn(warning)


SNAPSHOT_COLUMNS = (
    Column("Name", lambda snapshot: words.name(snapshot.name)),
    Column("Created", lambda snapshot: words.when(snapshot.created)),
    Column("Size", lambda snapshot: words.size(snapshot.size_bytes), right=True),
    Column("Protected", lambda snapshot: words.yes_no(snapshot.protected)),
)


def _state(volume: VolumeView) -> Cell:
    return words.state("deleting" if volume.deleting else volume.state)


def _used(volume: VolumeView) -> str:
    """Return what it takes in its pool; before it is made nobody knows."""
    return "" if volume.state == VolumeState.CREATING else format_bytes(volume.used_bytes)


_COLUMNS = (
    Column("Volume", lambda volume: words.name(path(volume))),
    Column("State", _state),
    Column("Size", lambda volume: words.size(volume.size_bytes), right=True),
    Column("Used", _used, right=True),
    Column("Format", lambda volume: volume.format, extra=True),
    Column("VM", lambda volume: volume.vm or ""),
    Column("Snapshots", lambda volume: str(len(volume.snapshots) or ""), right=True, extra=True),
)


@click.command("list")
@click.argument("name", default="")
@click.option("-p", "--pool", type=POOL, default="", help="Only those of this pool.")
@click.option("--vm", type=VM, default="", help="Only those of this VM.")
@format_option
@pass_session
def list_(session: Session, name: str, pool: str, vm: str) -> None:
    """List the volumes.

    NAME is a regular expression found anywhere in a name.
    """
    request = VolumeList(name=name, pool=pool, vm=vm)
    volumes = volume_list(session.client.ops, request)
    session.out.listing(volumes, _COLUMNS, empty="no volumes" + (" match" if request != VolumeList() else ""))


@click.command("info")
@click.argument("volume", type=VOLUME)
@format_option
@pass_session
def info(session: Session, volume: str) -> None:
    """Show one volume (pool/volume) in detail."""
    found = volume_info(session.client.ops, VolumeQuery(volume=volume))
    session.out.record(found, _sheet(found))


def _sheet(volume: VolumeView) -> Sheet:
    return [
        Line("Volume", words.name(path(volume))),
        Line("ID", words.faint(volume.id)),
        *([Line("Description", volume.description)] if volume.description else []),
        Line("State", _state(volume)),
        Line("Size", words.size(volume.size_bytes)),
        Line("Used", _used(volume)),
        Line("Format", volume.format),
        Line("VM", volume.vm or ""),
        *([Line("Made from", volume.source)] if volume.source else []),
        *([Line("Task", volume.task)] if volume.task else []),
        Line("Kept by", volume.node or ""),
        Block("Snapshots", SNAPSHOT_COLUMNS, volume.snapshots),
        conditions(volume.conditions),
    ]


def _settle(session: Session, view: VolumeView, *, timeout: float) -> VolumeView:
    later = f"pvc storage volume info {path(view)}"
    with watching(session, f"volume {path(view)}", later=later) as report:
        return wait_volume(session.client.ops, view.id, ObjectGoal.READY, timeout_s=timeout, report=report) or view


def _finish(session: Session, view: VolumeView, done: str, *, wait: bool, timeout: float) -> None:
    """Wait until the last change is carried out and say what was done; without ``wait`` that it will be."""
    if wait:
        view = _settle(session, view, timeout=timeout)
    session.out.done(f"volume {path(view)} {'is' if wait else 'will be'} {done}", volume=view)


@click.command("add")
@click.argument("volume")
@click.argument("size", type=Size())
@click.option("--image-format", default="", help="Format, where the driver has a choice: raw or qcow2.")
@click.option("--description", default="", help="A few words for people.")
@force_space_option
@wait_options(120)
@format_option
@pass_session
def add(
    session: Session,
    volume: str,
    size: int,
    image_format: str,
    description: str,
    force: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Create an empty volume (pool/volume) of SIZE, such as 10G."""
    pool, name = split(volume)
    request = VolumeAdd(pool=pool, name=name, size=size, format=image_format, description=description, force=force)
    view = volume_add(session.client.ops, request)
    warn_of_space(session, pool, force=force)
    _finish(session, view, f"added with {format_bytes(size)}", wait=wait, timeout=timeout)


@click.command("resize")
@click.argument("volume", type=VOLUME)
@click.argument("size", type=Size())
@force_space_option
@wait_options(120)
@format_option
@pass_session
def resize(session: Session, volume: str, size: int, force: bool, wait: bool, timeout: float) -> None:
    """Make a volume (pool/volume) larger: SIZE is its new size, such as 20G."""
    view = volume_resize(session.client.ops, VolumeResize(volume=volume, size=size, force=force))
    warn_of_space(session, view.pool, force=force)
    _finish(session, view, f"resized to {format_bytes(size)}", wait=wait, timeout=timeout)


@click.command("rename")
@click.argument("volume", type=VOLUME)
@click.argument("name")
@wait_options(120)
@format_option
@pass_session
def rename(session: Session, volume: str, name: str, wait: bool, timeout: float) -> None:
    """Rename a volume (pool/volume) within its pool, and in the definition of its VM."""
    view = volume_rename(session.client.ops, VolumeRename(volume=volume, name=name))
    if wait:
        _settle(session, view, timeout=timeout)
    session.out.done(f"volume {volume} {'is now' if wait else 'will be'} {path(view)}", volume=view)


@click.command("clone")
@click.argument("source", type=VOLUME)
@click.argument("name")
@click.option("-s", "--snapshot", default="", help="Take the contents of this snapshot.")
@click.option("--full-copy", is_flag=True, help="Copy all blocks instead of sharing them with the source.")
@click.option("--description", default="", help="A few words for people.")
@force_space_option
@wait_options(3600)
@format_option
@pass_session
def clone(
    session: Session,
    source: str,
    name: str,
    snapshot: str,
    full_copy: bool,
    description: str,
    force: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Make a new volume NAME from SOURCE (pool/volume, or pool/volume@snapshot) in the same pool."""
    pool, volume = split(source)
    origin = f"{volume}@{snapshot}" if snapshot else volume
    request = VolumeClone(
        pool=pool, source=origin, name=name, full_copy=full_copy, description=description, force=force
    )
    view = volume_clone(session.client.ops, request)
    warn_of_space(session, pool, force=force)
    _finish(session, view, f"a clone of {pool}/{origin}", wait=wait, timeout=timeout)


@click.command("remove")
@click.argument("volume", type=VOLUME)
@yes_option
@wait_options(600)
@format_option
@pass_session
def remove(session: Session, volume: str, yes: bool, wait: bool, timeout: float) -> None:
    """Remove a volume (pool/volume) and everything on it, snapshots too."""
    ops = session.client.ops
    found = volume_info(ops, VolumeQuery(volume=volume))
    snapshots = f" and its {words.count(len(found.snapshots), 'snapshot')}" if found.snapshots else ""
    session.confirm(f"Remove volume {path(found)} ({format_bytes(found.size_bytes)}){snapshots} for ever?", yes=yes)
    view = volume_remove(ops, VolumeQuery(volume=found.id))
    if wait:
        with watching(session, f"volume {path(view)}", later="pvc storage volume list") as report:
            wait_volume(ops, view.id, ObjectGoal.GONE, timeout_s=timeout, report=report)
    session.out.done(f"volume {path(view)} {'is removed' if wait else 'will be removed'}", volume=view)
