"""What this machine must have before a sandbox can be made."""

import glob
import importlib.util
import os
from importlib import resources
from typing import Final

from pvc_sandbox.errors import SandboxError

_ALWAYS: Final = "packages.txt"
_WITH_CEPH: Final = "packages-ceph.txt"
_OF_MANAGED_NETWORKS: Final = ("pvc_vxlan", "pvc_hostnet")


def missing_packages(*, ceph: bool = False) -> list[str]:
    """Return the Debian packages whose files are not there; ``ceph``: those for Ceph in the nodes too."""
    files = resources.files("pvc_sandbox")
    lines = [
        line
        for name in (_ALWAYS, *((_WITH_CEPH,) if ceph else ()))
        for line in files.joinpath(name).read_text().splitlines()
    ]
    wanted = [line.split() for line in lines if line and not line.startswith("#")]
    return [package for package, proof in wanted if not glob.glob(proof)]  # noqa: PTH207 - an absolute pattern


def check_requirements(*, ceph: bool = False, vxlan: bool = False) -> None:
    """Raise SandboxError, saying what to do, when a sandbox cannot be made here.

    ``ceph``: one with Ceph in its nodes; ``vxlan``: one with managed networks.
    """
    if os.geteuid() != 0:
        raise SandboxError("a sandbox makes namespaces and mounts, which only root may: repeat it with sudo")
    missing = missing_packages(ceph=ceph)
    if missing:
        raise SandboxError(
            f"Debian packages are missing; install them: apt-get install --no-install-recommends {' '.join(missing)}"
        )
    if ceph and importlib.util.find_spec("rados") is None:
        raise SandboxError(
            "Debian's binding of librados is not seen by this Python, and there is no other; use an environment of "
            "/usr/bin/python3 that sees Debian's packages: python3 -m venv --system-site-packages"
        )
    if vxlan and (lacking := [name for name in _OF_MANAGED_NETWORKS if importlib.util.find_spec(name) is None]):
        raise SandboxError(
            f"{' and '.join(lacking)} cannot be imported; install them: pip install 'pvc-sandbox[vxlan]'"
        )
    if importlib.util.find_spec("libvirt") is None:
        raise SandboxError(
            "the nodes' daemon needs libvirt's Python binding; install it: "
            "apt-get install libvirt-dev gcc pkg-config python3-dev && pip install 'pvc-core[node]'"
        )
