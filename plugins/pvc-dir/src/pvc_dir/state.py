"""What a volume is: its layers, snapshots, holders and clones, in one document beside the images.

A volume's contents are a chain of *layers*: image files that never change again once another layer or a
snapshot rests on them.  Only the ``active`` layer is written to.
"""

from msgspec import Struct
from msgspec.structs import replace

from pvc_core.plugin.holding import Holding


class Layer(Struct, frozen=True, kw_only=True):
    """An image file in the pool's ``layers`` directory."""

    file: str
    format: str
    size_bytes: int
    """Size that the image itself has; the active one is grown at the next attach when the volume is larger."""
    backing: str = ""
    """File of the layer below it, of this volume or of the one it was cloned from."""


class KeptSnapshot(Struct, frozen=True, kw_only=True):
    """A named layer."""

    name: str
    layer: str
    size_bytes: int
    created: float
    protected: bool = False


class Child(Struct, frozen=True, kw_only=True):
    """A clone that rests on a layer of this volume.  Noted before the clone exists, so it may be gone: see ``lineage``."""

    id: str
    name: str
    layer: str


class Parent(Struct, frozen=True, kw_only=True):
    """What a clone was made of."""

    id: str
    name: str
    layer: str
    snapshot: str = ""


class VolumeState(Holding, frozen=True, kw_only=True):
    """All that is known of a volume."""

    id: str
    """Unique for ever, unlike its name."""
    format: str
    """As asked for; after a snapshot the active layer may be qcow2 all the same."""
    size_bytes: int
    active: str
    layers: tuple[Layer, ...]
    """The volume's own layers."""
    snapshots: tuple[KeptSnapshot, ...] = ()
    children: tuple[Child, ...] = ()
    parent: Parent | None = None
    origin: str = ""
    """What a clone was asked to be made of, so that a repeated request is recognised."""
    planned: tuple[str, ...] = ()
    """Files in ``layers`` that somebody is making; each becomes a layer, or is doomed."""
    doomed: tuple[str, ...] = ()
    """Files in ``layers`` that are to be removed; none ever becomes a layer again."""
    leaving: str = ""
    """Why the volume takes no new holders or clones: it is being renamed or deleted."""

    def layer(self, file: str) -> Layer:
        """Return the own layer in this file."""
        return next(layer for layer in self.layers if layer.file == file)

    def snapshot(self, name: str) -> KeptSnapshot | None:
        """Return the snapshot of this name."""
        return next((kept for kept in self.snapshots if kept.name == name), None)

    def with_layer(self, new: Layer) -> "VolumeState":
        """Return it with a layer added, or replaced when there is one of its file; it is no longer planned."""
        return replace(
            self,
            layers=(*(la for la in self.layers if la.file != new.file), new),
            planned=tuple(file for file in self.planned if file != new.file),
        )

    def without_layer(self, file: str) -> "VolumeState":
        """Return it with a layer doomed."""
        return replace(self, layers=tuple(la for la in self.layers if la.file != file), doomed=(*self.doomed, file))
