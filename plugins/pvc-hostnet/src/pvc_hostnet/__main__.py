"""``pvc-hostnet``: the networks of this node without its daemon, for what has to start before it (a ZooKeeper server)."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from pvc_core.model.errors import PvcError
from pvc_core.plugin import ConfigError, decode
from pvc_hostnet.config import HostnetConfig
from pvc_hostnet.faults import Fault, faults
from pvc_hostnet.layout import Layout, layout
from pvc_hostnet.seen import read
from pvc_hostnet.truth import make_true, remove_floating
from pvc_netdev.links import Links

_log: Final = logging.getLogger("pvc_hostnet")

_FILE: Final = "/etc/pvc/pvcnoded.yml"
_VARIABLE: Final = "PVC_NODE_CONFIG"
"""Names the daemon's file, as for the daemon itself."""
_LOOK_S: Final = 0.5
EXIT_WRONG: Final = 1
EXIT_CONFIG: Final = 78
"""EX_CONFIG of sysexits.h."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 when something is not as the section says, 78 when the file is wrong."""
    parser = argparse.ArgumentParser(prog="pvc-hostnet", description="The networks of this node, without its daemon.")
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--config", "-c", metavar="FILE", default=os.environ.get(_VARIABLE) or _FILE, help="pvcnoded.yml [%(default)s]"
    )
    apply_ = commands.add_parser(
        "apply", parents=[shared], help="make MTUs, addresses and default routes as the file says"
    )
    apply_.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for devices that do not exist yet"
    )
    commands.add_parser("check", parents=[shared], help="change nothing, say what is not as the file says")
    commands.add_parser("release", parents=[shared], help="remove floating addresses; only where no daemon runs")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        wanted = read_layout(options.config)
        found = _run(options, wanted)
    except ConfigError as error:
        sys.stderr.write(f"pvc-hostnet: {error}\n")
        return EXIT_CONFIG
    except PvcError as error:
        sys.stderr.write(f"pvc-hostnet: {error}\n")
        return EXIT_WRONG
    for fault in found:
        sys.stderr.write(f"pvc-hostnet: network {fault.network}: {fault.message}\n")
    return EXIT_WRONG if found else 0


def _run(options: argparse.Namespace, wanted: Layout) -> list[Fault]:
    match options.command:
        case "apply":
            return apply(wanted, options.wait)
        case "release":
            remove_floating(wanted, _log)
            return []
        case _:
            return check(wanted)


def read_layout(path: str) -> Layout:
    """Return the networks that a node's configuration file gives.  Raises ConfigError."""
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: this is not valid YAML: {' '.join(str(error).split())}") from error
    plugins = _mapping(_mapping(value).get("plugins"))
    if "hostnet" not in plugins:
        raise ConfigError(f"{path}: the plugin hostnet is not listed below plugins")
    name = _mapping(_mapping(value).get("node")).get("name") or os.uname().nodename.partition(".")[0]
    try:
        return layout(decode(plugins["hostnet"], HostnetConfig, "plugins.hostnet"), str(name))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def apply(wanted: Layout, wait_s: float = 0.0) -> list[Fault]:
    """Make the kernel as the layout says and return what is wrong all the same; floating addresses are the daemon's."""
    until = time.monotonic() + wait_s
    while True:
        outcome = make_true(wanted, held=False, log=_log, whole=True)
        found = faults(wanted, outcome.seen, held=False, refused=outcome.refused, twice={})
        if time.monotonic() >= until or not any(fault.reason == "DeviceMissing" for fault in found):
            return found
        time.sleep(_LOOK_S)


def check(wanted: Layout) -> list[Fault]:
    """Return what is not as the layout says."""
    with Links() as links:
        seen = read(links, wanted, whole=True)
    return faults(wanted, seen, held=False, refused={}, twice={})


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


if __name__ == "__main__":
    sys.exit(main())
