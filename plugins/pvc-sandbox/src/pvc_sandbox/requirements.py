"""What this machine must have before a sandbox can be made."""

import glob
import importlib.util
import os
from importlib import resources

from pvc_sandbox.errors import SandboxError


def missing_packages() -> list[str]:
    """Return the Debian packages whose files are not there."""
    lines = resources.files("pvc_sandbox").joinpath("packages.txt").read_text().splitlines()
    wanted = [line.split() for line in lines if line and not line.startswith("#")]
    return [package for package, proof in wanted if not glob.glob(proof)]  # noqa: PTH207 - an absolute pattern


def check_requirements() -> None:
    """Raise SandboxError, saying what to do, when a sandbox cannot be made here."""
    if os.geteuid() != 0:
        raise SandboxError("a sandbox makes namespaces and mounts, which only root may: repeat it with sudo")
    missing = missing_packages()
    if missing:
        raise SandboxError(
            f"Debian packages are missing; install them: apt-get install --no-install-recommends {' '.join(missing)}"
        )
    if importlib.util.find_spec("libvirt") is None:
        raise SandboxError(
            "the nodes' daemon needs libvirt's Python binding; install it: "
            "apt-get install libvirt-dev gcc pkg-config python3-dev && pip install 'pvc-core[node]'"
        )
