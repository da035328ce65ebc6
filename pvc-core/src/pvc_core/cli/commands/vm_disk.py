"""`pvc vm disk add`, `remove`, `modify`, `list`."""

from collections.abc import Callable
from typing import Any, Final, TypeVar, get_args

import click
import msgspec

from pvc_core.cli.commands.vm_show import disk_columns
from pvc_core.cli.complete import VM, VOLUME
from pvc_core.cli.options import Size, format_option, wait_options
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.vm_devices import finish, restart_option
from pvc_core.model.disk import DiskBus, DiskCache
from pvc_core.model.errors import InvalidRequest
from pvc_core.ops.vm_definition import DiskDefinition, LimitsDefinition
from pvc_core.ops.vm_disks import (
    LIMITS,
    VmDiskAdd,
    VmDiskModify,
    VmDiskRemove,
    vm_disk_add,
    vm_disk_modify,
    vm_disk_remove,
)
from pvc_core.ops.vm_views import VmQuery, vm_info
from pvc_core.ops.wait import VmGoal

Command = TypeVar("Command", bound=Callable[..., Any])

_WHAT: Final = {
    "iops": "Reads and writes per second.",
    "read_iops": "Reads per second.",
    "write_iops": "Writes per second.",
    "bandwidth": "Bytes read and written per second, such as 100M.",
    "read_bandwidth": "Bytes read per second.",
    "write_bandwidth": "Bytes written per second.",
}


def _limit_options(command: Command) -> Command:
    """Add an option for each limit of a disk: ``--iops`` and so on, and ``--iops-burst``."""
    for name in reversed(LIMITS):
        base = name.removesuffix("_burst")
        help_ = (
            _WHAT[base]
            if base == name
            else f"What it may do in one second now and then; not less than --{_dashed(base)}."
        )
        kind: click.ParamType[int] = Size() if "bandwidth" in name else click.IntRange(min=0)
        command = click.option(f"--{_dashed(name)}", name, type=kind, metavar="N", help=f"{help_} 0: no limit.")(
            command
        )
    return command


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _limits(given: dict[str, int | None]) -> dict[str, int]:
    return {name: value for name, value in given.items() if value is not None}


_cache_option = click.option("--cache", type=click.Choice(get_args(DiskCache)), help="How the host caches it.")


@click.command("add")
@click.argument("vm", type=VM)
@click.argument("volume", type=VOLUME, metavar="POOL/VOLUME")
@click.option(
    "--bus", type=click.Choice(get_args(DiskBus)), default="virtio", help="The guest's controller for it [virtio]."
)
@click.option("--read-only", is_flag=True, help="The guest cannot write to it.")
@_cache_option
@click.option("--discard/--no-discard", default=True, help="What the guest discards is freed in the volume (default).")
@_limit_options
@restart_option
@wait_options()
@format_option
@pass_session
def add(
    session: Session,
    vm: str,
    volume: str,
    bus: DiskBus,
    read_only: bool,
    cache: DiskCache | None,
    discard: bool,
    restart: bool,
    wait: bool,
    timeout: float,
    **limits: int | None,
) -> None:
    """Give a VM a volume as its last disk.

    A running guest gets it at once on the buses virtio, scsi and usb, and when it is started again on sata and ide.  A disk that
    is being removed, and that the guest has not let go of, is kept.
    """
    pool, slash, name = volume.partition("/")
    if not (slash and pool and name):
        raise InvalidRequest(f"{volume!r} is not a volume: write pool/volume, such as ssd/web1")
    disk = DiskDefinition(
        pool=pool,
        volume=name,
        bus=bus,
        read_only=read_only,
        cache=cache or "none",
        discard=discard,
        limits=LimitsDefinition(**_limits(limits)),
    )
    done = vm_disk_add(session.client.ops, VmDiskAdd(vm=vm, disk=disk, restart=restart))
    finish(session, done, VmGoal.DISKS, f"has the disk {volume}", wait=wait, timeout=timeout)


@click.command("remove")
@click.argument("vm", type=VM)
@click.argument("volume", type=VOLUME, metavar="POOL/VOLUME")
@restart_option
@wait_options()
@format_option
@pass_session
def remove(session: Session, vm: str, volume: str, restart: bool, wait: bool, timeout: float) -> None:
    """Take a disk from a VM; the volume stays.

    A running guest is asked to let go of it, and the volume belongs to the VM until it has, or has ended.  The first disk is taken
    only from a VM that does not run.
    """
    done = vm_disk_remove(session.client.ops, VmDiskRemove(vm=vm, volume=volume, restart=restart))
    finish(session, done, VmGoal.DISKS, f"has no disk {volume} any more", wait=wait, timeout=timeout)


@click.command("modify")
@click.argument("vm", type=VM)
@click.argument("volume", type=VOLUME, metavar="POOL/VOLUME")
@_limit_options
@_cache_option
@click.option("--discard/--no-discard", default=None, help="What the guest discards is freed in the volume, or not.")
@restart_option
@wait_options()
@format_option
@pass_session
def modify(
    session: Session,
    vm: str,
    volume: str,
    cache: DiskCache | None,
    discard: bool | None,
    restart: bool,
    wait: bool,
    timeout: float,
    **limits: int | None,
) -> None:
    """Change what a disk of a VM may do per second, or how it is cached.

    A running guest has to keep new limits at once; --cache and --discard take effect when it is started again.
    """
    request = VmDiskModify(
        vm=vm,
        volume=volume,
        limits=dict(_limits(limits)),
        cache=msgspec.UNSET if cache is None else cache,
        discard=msgspec.UNSET if discard is None else discard,
        restart=restart,
    )
    done = vm_disk_modify(session.client.ops, request)
    finish(session, done, VmGoal.DISKS, f"has the disk {volume} with these settings", wait=wait, timeout=timeout)


@click.command("list")
@click.argument("vm", type=VM)
@format_option
@pass_session
def list_(session: Session, vm: str) -> None:
    """List the disks of a VM, in the order in which it boots from them."""
    found = vm_info(session.client.ops, VmQuery(vm=vm))
    session.out.listing(found.spec.disks, disk_columns(found), empty=f"VM {found.view.name} has no disks")
