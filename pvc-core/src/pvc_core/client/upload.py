"""An image file of this machine becomes a volume: it is sent to a node, whose task takes it in."""

import contextlib
import time
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from pvc_core.client.image_file import ImageFile
from pvc_core.client.local import Client
from pvc_core.client.service import ServiceClient
from pvc_core.model.errors import PvcError, Unavailable
from pvc_core.model.task import Task
from pvc_core.model.units import format_bytes
from pvc_core.ops.volume_image import VolumeImport, volume_import, volume_import_node
from pvc_core.ops.waiting import Progress, Report

PATIENCE_S: Final = 60.0
"""A node that does not answer is asked again for so long: its daemon may be restarted."""
_PAUSE_S: Final = 1.0


def send(
    client: Client,
    file: Path,
    request: VolumeImport,
    report: Report = lambda _: None,
    *,
    image_format: str | None = None,
) -> VolumeImport:
    """Send a file to a node; return the request with what is known then: node, path and format.  ``begin`` it.

    All that can be is checked before anything is sent.  When it ends early, for whatever reason, what was sent is removed.
    Raises InvalidRequest (the file), what ``volume_import`` raises, ServiceRefused, Unavailable.
    """
    with contextlib.closing(ImageFile(file)) as image:
        request = replace(request, format=image.format(image_format))
        data_bytes = image.data_bytes()
        node = volume_import_node(client.ops, request, max(data_bytes, 1))
        service = client.service(node)
        path = service.upload_begin(file.name, image.size_bytes, data_bytes)
        id_ = path.rpartition("/")[2]
        try:
            _send(service, id_, image, data_bytes, report)
        except BaseException:
            _remove(service, id_)
            raise
    return replace(request, path=path, node=node)


def begin(client: Client, sent: VolumeImport) -> Task:
    """Begin the import of a file that was sent; one that cannot begin is removed.  Raises what ``volume_import`` raises."""
    try:
        return volume_import(client.ops, sent)
    except Unavailable:
        raise  # it may have begun: the node removes the file when no task needs it
    except PvcError:
        assert sent.node is not None
        _remove(client.service(sent.node), sent.path.rpartition("/")[2])
        raise


def _remove(service: ServiceClient, id_: str) -> None:
    with contextlib.suppress(PvcError):  # else the node does it itself, later
        service.upload_end(id_)


def _send(service: ServiceClient, id_: str, image: ImageFile, data_bytes: int, report: Report) -> None:
    done = 0
    what = f"% of {format_bytes(image.size_bytes)} to {service.node}"
    report(Progress(f"sent 0 {what}", 0.0))
    for part in image.parts():
        if part.data:
            _send_part(service, id_, part.offset, part.data)
        done += part.length
        fraction = done / data_bytes
        report(Progress(f"sent {int(fraction * 10) * 10} {what}", fraction))


def _send_part(service: ServiceClient, id_: str, offset: int, data: bytes) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            service.upload_part(id_, offset, data)
        except Unavailable:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_S)
        else:
            return
