"""Volumes from and to image files outside the pool."""

from pathlib import Path

from pvc_core.plugin import Progress
from pvc_core.plugin.holding import check_unused
from pvc_core.plugin.qemu_img import check_format, check_importable, check_source, new_file
from pvc_dir import lineage, volumes
from pvc_dir.image import Images
from pvc_dir.pool import Pool


def take_in(pool: Pool, images: Images, name: str, path: str, format_: str, progress: Progress) -> None:
    """Make a volume, in the pool's format, from an image file; nothing is left of one that fails."""
    check_format(format_)
    source = Path(path)
    check_source(source)
    if volumes.find(pool, name) is not None:
        raise volumes.exists(pool, name)
    found = images.info(source, format_)
    check_importable(source, format_, found)
    layer = volumes.new_layer(pool.format, found.size_bytes)
    with volumes.building(pool, name, layer.format, layer) as attempt:
        images.convert(source, format_, attempt.path(), layer.format, progress)
        attempt.commit(size_bytes=found.size_bytes)


def hand_out(pool: Pool, images: Images, name: str, snapshot: str, path: str, format_: str, progress: Progress) -> None:
    """Write a volume, or a snapshot of it, to a new image file, which appears when it is complete."""
    check_format(format_)
    state = volumes.get(pool, name)
    if snapshot:
        file = lineage.required_snapshot(state, name, snapshot).layer
    else:
        check_unused(state, name, "export it, or export a snapshot of it")
        file = volumes.settle_size(pool, images, name).active
    layer = state.layer(file)
    with new_file(path) as partial:
        images.copy(str(pool.layer(file)), layer.format, str(partial), format_, progress)
