"""What this plugin offers: commands only, so no node enables it."""

from typing import Final

from pvc_core.plugin.manifest import CommandSpec, Manifest

MANIFEST: Final = Manifest(
    name="sandbox",
    summary="a whole real cluster on one machine, for trying out and for tests",
    api=(1, 0),
    commands=(
        CommandSpec(
            name="sandbox",
            target="pvc_sandbox.cli:sandbox",
            help="Make and break a cluster on this machine.",
        ),
    ),
)
