"""FRR in the nodes of a sandbox: Debian's own daemons, under Debian's watchfrr, with a configuration of each node's own.

A service that is enabled on a node once, when it gets FRR: whoever disables it does so for good.  Within a node everything is
where Debian has it.
"""

import shutil
from pathlib import Path
from typing import Final

from pvc_sandbox import boot
from pvc_sandbox.files import write_atomically
from pvc_sandbox.layout import Layout
from pvc_sandbox.units import frr as frr_unit

_OWNER: Final = "frr"
_CONF: Final = "frr.conf"
# Debian's, but for the log, and for watchfrr, which is told to hurry: by default it looks at the daemons every 5 s, calls one
# hung after 90 s, and waits up to 10 min before it starts one again.
_DAEMONS: Final = """\
# FRR's daemons on a node of a sandbox; zebra and staticd always run.
bgpd=yes
vtysh_enable=yes
zebra_options="  -A 127.0.0.1 -s 90000000"
bgpd_options="   -A 127.0.0.1"
staticd_options="-A 127.0.0.1"
# A node has no syslog.
frr_global_options="--log file:/var/log/frr/frr.log --log-level informational"
# A daemon that ended is started again at watchfrr's next look, one that does not answer any more after the timeout (both in
# seconds); while it keeps ending the pause doubles, from the least to the greatest restart interval.
watchfrr_options="--interval 1 --timeout 5 --min-restart-interval 1 --max-restart-interval 5"
"""
_INTEGRATED: Final = "service integrated-vtysh-config\n"


def node_binds(layout: Layout, number: int) -> tuple[tuple[str, str], ...]:
    """Return what stands in place of Debian's directories on a node."""
    state = layout.node_state(number)
    return (
        (str(frr_unit.configuration(state)), "/etc/frr"),
        (str(_logs(state)), "/var/log/frr"),
        (str(state / "frr/scratch"), "/var/tmp/frr"),  # noqa: S108 - not ours to choose
    )


def configure_node(layout: Layout, number: int) -> None:
    """Give a node FRR, unless it has it; its configuration is its own from then on."""
    state = layout.node_state(number)
    place = frr_unit.configuration(state)
    for directory, mode in ((place, 0o750), (_logs(state), 0o750), (state / "frr/scratch", 0o700)):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(mode)
        shutil.chown(directory, _OWNER, _OWNER)
    daemons = place / "daemons"
    if daemons.exists():
        return
    boot.enable(state, frr_unit.service(state))
    # Last the one that says that all is done.
    for path, content in ((place / "vtysh.conf", _INTEGRATED), (place / _CONF, _INTEGRATED), (daemons, _DAEMONS)):
        write_atomically(path, content, mode=0o640, owner=_OWNER)


def log(layout: Layout, number: int) -> Path:
    """Return the log of all daemons of a node."""
    return _logs(layout.node_state(number)) / "frr.log"


def _logs(state: Path) -> Path:
    return state / "frr/log"
