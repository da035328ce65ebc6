"""What the plugin ``dir`` is and offers."""

from typing import Final

from pvc_core.plugin import Manifest

MANIFEST: Final = Manifest(
    name="dir",
    summary="Volumes as image files in a directory that every node sees (NFS, CephFS, GFS2, or one node's disk)",
    api=(1, 0),
    storage=("dir",),
    config="pvc_dir.config:DirConfig",
    validators={"dir": "pvc_dir.parameters:validate_pool"},
)
