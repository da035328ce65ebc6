"""Environment variables that say where files are: for containers, tests, and several nodes on one machine."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

NODE_FILE: Final = "/etc/pvc/pvcnoded.yml"
CLIENT_FILE: Final = "/etc/pvc/pvc.yml"
CONFIG: Final = "PVC_CONFIG"
NODE_CONFIG: Final = "PVC_NODE_CONFIG"
"""Its own variable: on a machine where both run, PVC_CONFIG may well name a client's file."""

DIRECTORIES: Final = {
    "PVC_STATE_DIRECTORY": "state_directory",
    "PVC_RUN_DIRECTORY": "run_directory",
    "PVC_CONSOLE_DIRECTORY": "console_directory",
    "PVC_UPLOAD_DIRECTORY": "upload_directory",
}
"""Variable -> key of the section ``node`` that it overrides."""

VARIABLES: Final = {
    CONFIG: f"The configuration file of `pvc`, instead of `{CLIENT_FILE}` (or, where that does not exist, "
    f"`{NODE_FILE}`). The option `--config` goes before it.",
    NODE_CONFIG: f"The configuration file of `pvcnoded`, instead of `{NODE_FILE}`. The option `--config` goes before it.",
    "PVC_STATE_DIRECTORY": "Overrides `node.state_directory`.",
    "PVC_RUN_DIRECTORY": "Overrides `node.run_directory`.",
    "PVC_CONSOLE_DIRECTORY": "Overrides `node.console_directory`.",
    "PVC_UPLOAD_DIRECTORY": "Overrides `node.upload_directory`.",
    "PVC_COLOUR": "Colours in the output of `pvc`, as the option `--colour`.",
    "PVC_DEBUG": "`1`: `pvc` shows everything, tracebacks too, as the option `--debug`.",
    "PVC_QUIET": "`1`: `pvc` prints results and errors only, as the option `--quiet`.",
    "PVC_TRACE_HOOKS": "`1`: the daemon logs every call of a plugin's hook (logger `pvc.trace`), without secrets.",
}
"""Every variable that core reads, with what it does."""


def node_file(option: str | None = None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the file that ``pvcnoded`` reads: the option, else the environment's, else the default."""
    return option or environment.get(NODE_CONFIG) or NODE_FILE


def client_file(option: str | None = None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the file that ``pvc`` reads; on a node that has no file for clients, the node's own."""
    if chosen := option or environment.get(CONFIG):
        return chosen
    return CLIENT_FILE if Path(CLIENT_FILE).exists() or not Path(NODE_FILE).exists() else NODE_FILE
