"""Files of Debian packages, unpacked and not installed."""

from pathlib import Path
from typing import Final

from pvc_core.plugin.process import run
from pvc_sandbox.errors import SandboxError

_DOWNLOAD_DEADLINE_S: Final = 300.0


def download(package: str, work: Path) -> Path:
    """Download a package with apt and unpack it; return the directory below ``work``.  Raises SandboxError."""
    # As root all the way: apt's own unprivileged user could not write here.
    argv = [
        "apt-get",
        "-qq",
        "-o",
        "APT::Sandbox::User=root",
        "-o",
        f"Dir::Cache::archives={work}",
        "download",
        package,
    ]
    answer = run(["env", "-C", str(work), *argv], deadline_s=_DOWNLOAD_DEADLINE_S)
    archives = list(work.glob("*.deb"))
    if answer.returncode or not archives:
        raise SandboxError(
            f"{package}, for guests, cannot be downloaded with apt-get ({answer.stderr.strip() or 'it said nothing'}); "
            "run: apt-get update, then try again"
        )
    unpacked = work / "unpacked"
    run(["dpkg-deb", "--extract", str(archives[0]), str(unpacked)], deadline_s=120).check()
    archives[0].unlink()
    return unpacked
