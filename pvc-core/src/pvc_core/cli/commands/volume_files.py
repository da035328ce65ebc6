"""`pvc storage volume upload`, `import` and `export`: images in files of this machine, and of a node."""

from pathlib import Path

import click

from pvc_core.cli.commands.volume import split, warn_of_space
from pvc_core.cli.complete import NODE, VOLUME
from pvc_core.cli.options import force_space_option, format_option, wait_options
from pvc_core.cli.progress import working
from pvc_core.cli.session import Session, pass_session
from pvc_core.cli.tasks import finish_task
from pvc_core.ops.volume_image import VolumeExport, VolumeImport, volume_export, volume_import
from pvc_core.plugin.qemu_img import FILE_FORMATS


@click.command("upload")
@click.argument("volume")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-t", "--node", type=NODE, help="Node to which it is sent; left out: one is chosen.")
@click.option(
    "--image-format",
    type=click.Choice(FILE_FORMATS),
    help="Format of the file; left out: as its name ends, else raw.  vpc is VHD.",
)
@click.option("--description", default="", help="A few words for people.")
@force_space_option
@wait_options(None)
@format_option
@pass_session
def upload(
    session: Session,
    volume: str,
    file: Path,
    node: str | None,
    image_format: str | None,
    description: str,
    force: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Make a new volume (pool/volume) from an image FILE on this machine.

    It is sent to a node, which needs room for it in its upload directory until the volume is made.
    """
    from pvc_core.client.upload import begin, send

    pool, name = split(volume)
    request = VolumeImport(pool=pool, name=name, path="", node=node, description=description, force=force)
    with working(
        session, f"volume {volume}", stopped="stopped; no volume was made, and what was sent is removed"
    ) as report:
        sent = send(session.client, file, request, report, image_format=image_format)
    task = begin(session.client, sent)
    finish_task(session, task, lambda _task: f"volume {volume} is made from {file}", wait=wait, timeout=timeout)
    warn_of_space(session, pool, force=force)


@click.command("import")
@click.argument("volume")
@click.argument("file")
@click.option("-t", "--node", type=NODE, help="Node that has the file; left out: it is on all nodes.")
@click.option("--image-format", default="raw", show_default=True, help="Format of the file, such as raw, qcow2, vmdk.")
@click.option("--description", default="", help="A few words for people.")
@force_space_option
@wait_options(None)
@format_option
@pass_session
def import_(
    session: Session,
    volume: str,
    file: str,
    node: str | None,
    image_format: str,
    description: str,
    force: bool,
    wait: bool,
    timeout: float,
) -> None:
    """Make a new volume (pool/volume) from an image FILE on a node (an absolute path there)."""
    pool, name = split(volume)
    request = VolumeImport(
        pool=pool, name=name, path=file, format=image_format, node=node, description=description, force=force
    )
    task = volume_import(session.client.ops, request)
    finish_task(session, task, lambda _task: f"volume {volume} is imported from {file}", wait=wait, timeout=timeout)
    warn_of_space(session, pool, force=force)


@click.command("export")
@click.argument("volume", type=VOLUME)
@click.argument("file")
@click.option("-s", "--snapshot", default="", help="Write this snapshot instead of the contents now.")
@click.option("-t", "--node", type=NODE, help="Node that gets the file; left out: one is chosen.")
@click.option("--image-format", default="raw", show_default=True, help="Format of the file, such as raw or qcow2.")
@wait_options(None)
@format_option
@pass_session
def export(
    session: Session,
    volume: str,
    file: str,
    snapshot: str,
    node: str | None,
    image_format: str,
    wait: bool,
    timeout: float,
) -> None:
    """Write a volume (pool/volume) to a new image FILE on a node (an absolute path there)."""
    request = VolumeExport(volume=volume, path=file, format=image_format, snapshot=snapshot, node=node)
    task = volume_export(session.client.ops, request)
    finish_task(
        session, task, lambda done: f"volume {volume} is exported to {done.node}:{file}", wait=wait, timeout=timeout
    )
