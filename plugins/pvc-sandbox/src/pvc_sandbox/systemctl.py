"""The program ``systemctl`` of a node: it knows the units of Ceph's daemons, and what PVC does with them.

A node has no systemd; its first process keeps its services.  ``start``, ``stop``, ``enable``, ``disable``, ``is-active``
and ``is-enabled`` take one or more units; exit statuses are those of systemctl(1).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pvc_core.model.errors import PvcError
from pvc_sandbox import boot
from pvc_sandbox.ceph_units import unit
from pvc_sandbox.control import Service, ServiceState, Start, Status, Stop, ask
from pvc_sandbox.files import write_atomically
from pvc_sandbox.waiting import wait_until

PROGRAM: Final = "systemctl"
_FAILED: Final = 1
_NOT_ACTIVE: Final = 3
_NO_SUCH_UNIT: Final = 5
_LONGER_THAN_STOP_S: Final = 5.0
_VERBS: Final = ("start", "stop", "enable", "disable", "is-active", "is-enabled")


def install(directory: Path, state: Path) -> None:
    """Write the program for the node with this state directory."""
    script = (
        f"#!{sys.executable}\nimport sys\nfrom {__name__} import main\nsys.exit(main(sys.argv[1:], {str(state)!r}))\n"
    )
    write_atomically(directory / PROGRAM, script, mode=0o755)


def main(arguments: Sequence[str], state: str, run: Path = Path("/run")) -> int:
    """Do what the words say on the node with this state directory and /run; return the exit status."""
    verb, names = (arguments[0], arguments[1:]) if arguments else ("", ())
    if verb not in _VERBS or not names:
        _complain(
            f"{' '.join(arguments)!r} is not understood; on a node of a sandbox it is called: {'|'.join(_VERBS)} UNIT..."
        )
        return _FAILED
    try:
        services = [unit(Path(state), name) for name in names]
    except PvcError as error:
        _complain(str(error))
        return _NO_SUCH_UNIT
    try:
        return max([_do(verb, service, Path(state), run) for service in services])
    except (PvcError, OSError) as error:
        _complain(str(error))
        return _FAILED


def _do(verb: str, service: Service, state: Path, run: Path) -> int:
    match verb:
        case "start":
            ask(run, Start(service=service))
        case "stop":
            _stop(service, run)
        case "enable":
            boot.enable(state, service)
        case "disable":
            boot.disable(state, service.name)
        case "is-active":
            return _say(_activity(ask(run, Status()).get(service.name)), "active", _NOT_ACTIVE)
        case "is-enabled":
            return _say("enabled" if boot.is_enabled(state, service.name) else "disabled", "enabled", _FAILED)
    return 0


def _stop(service: Service, run: Path) -> None:
    """Return when it is gone; what was never started is."""
    if service.name not in ask(run, Status()):
        return
    ask(run, Stop(name=service.name))
    wait_until(
        f"end of {service.name}",
        lambda: not ask(run, Status())[service.name].pid,
        deadline_s=service.stop_timeout_s + _LONGER_THAN_STOP_S,
    )


def _activity(state: ServiceState | None) -> str:
    if state is None:
        return "inactive"
    if state.pid:
        return "active" if state.wanted else "deactivating"
    if not state.wanted:
        return "inactive"
    return "failed" if state.given_up else "activating"


def _say(word: str, good: str, otherwise: int) -> int:
    sys.stdout.write(f"{word}\n")
    return 0 if word == good else otherwise


def _complain(text: str) -> None:
    sys.stderr.write(f"{PROGRAM}: {text}\n")
