"""The plugin's section of ``pvcnoded.yml``."""

from typing import Annotated

from msgspec import Meta, Struct


class DirConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of this node."""

    qemu_img: Annotated[str, Meta(min_length=1, description="The qemu-img program, 5.1 or newer.")] = "qemu-img"
    roots: Annotated[
        tuple[str, ...],
        Meta(description="Directories below which pools may live on this node. Empty: anywhere."),
    ] = ()
