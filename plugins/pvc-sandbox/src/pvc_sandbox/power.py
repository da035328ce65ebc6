"""A node's power button, as its BMC presses it: ``python -m pvc_sandbox.power STATE NODE on|off|reset|status``.

``status`` prints ``on`` or ``off``.  ``off`` returns when everything on the node has ended; ``on`` when its first
process runs, the rest comes by itself.  All may be repeated, come at any moment, and from several at once.
"""

import os
import sys
from pathlib import Path
from typing import Final

from pvc_core.model.errors import PvcError
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.host import Host, last_lines
from pvc_sandbox.layout import load_layout
from pvc_sandbox.waiting import wait_until

_ON_DEADLINE_S: Final = 10.0


def press(host: Host, button: str) -> str:
    """Do what the button says and return what is to be printed.  Raises SandboxError."""
    match button:
        case "status":
            return "on\n" if host.running else "off\n"
        case "on":
            _switch_on(host)
        case "off":
            host.power_cut()
        case "reset":
            if host.power_cut():
                _switch_on(host)
        case _:
            raise SandboxError(f"a power button knows on, off, reset and status, not {button!r}")
    return ""


def _switch_on(host: Host) -> None:
    """Boot in another process, for a BMC does not wait for an operating system."""
    if host.running:
        return
    log = host.state / "log/power.log"
    child = os.fork()
    if child == 0:
        _boot_apart(host, log)

    def settled() -> bool:
        if host.running:
            return True
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended and status:
            raise SandboxError(f"{host.name} did not start: {last_lines(log)}")
        return bool(ended)

    wait_until(f"{host.name}: power on", settled, deadline_s=_ON_DEADLINE_S)


def _boot_apart(host: Host, log: Path) -> None:
    status = 1
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        host.boot()
        status = 0
    except PvcError as error:
        sys.stderr.write(f"{host.name}: {error}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> None:
    """Press the button; exit status 1 and one line when that did not work."""
    state, node, button = sys.argv[1:]
    os.setpgid(0, 0)  # a BMC that loses its own power in the midst of it must not leave a host half cut
    try:
        layout = load_layout(Path(state))
        if layout is None:
            raise SandboxError(f"no sandbox in {state}")
        sys.stdout.write(press(Host(layout, layout.node_number(node)), button))
    except PvcError as error:
        sys.exit(f"{node}: {error}")


if __name__ == "__main__":
    main()
