"""The program ``systemctl`` of a node: it knows the units of package ``units``, and what PVC does with them.

A node has no systemd; its first process keeps its services.  ``start``, ``stop``, ``restart``, ``reload``, ``enable``,
``disable``, ``is-active``, ``is-enabled`` and ``reset-failed`` take one or more units; exit statuses are those of systemctl(1).
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pvc_core.model.errors import PvcError
from pvc_core.plugin.process import run as run_program
from pvc_sandbox import boot
from pvc_sandbox.control import ServiceState, Start, Status, Stop, ask
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import write_atomically
from pvc_sandbox.layout import Layout
from pvc_sandbox.units.known import unit
from pvc_sandbox.units.unit import Unit
from pvc_sandbox.waiting import wait_until

PROGRAM: Final = "systemctl"
_FAILED: Final = 1
_NOT_ACTIVE: Final = 3
_NO_SUCH_UNIT: Final = 5
_LONGER_THAN_STOP_S: Final = 5.0
_START_S: Final = 90.0
_RELOAD_S: Final = 90.0


def programs(layout: Layout, number: int) -> Path:
    """Return the directory of a node's own programs, which is to come first on the path."""
    return layout.node_state(number) / "bin"


def install(directory: Path, state: Path) -> None:
    """Write the program for the node with this state directory."""
    script = (
        f"#!{sys.executable}\nimport sys\nfrom {__name__} import main\nsys.exit(main(sys.argv[1:], {str(state)!r}))\n"
    )
    write_atomically(directory / PROGRAM, script, mode=0o755)


def main(arguments: Sequence[str], state: str, run: Path = Path("/run")) -> int:
    """Do what the words say on the node with this state directory and /run; return the exit status."""
    verb, names = (arguments[0], arguments[1:]) if arguments else ("", ())
    do = _VERBS.get(verb)
    if do is None or not names:
        _complain(
            f"{' '.join(arguments)!r} is not understood; on a node of a sandbox it is called: {'|'.join(_VERBS)} UNIT..."
        )
        return _FAILED
    try:
        units = [unit(Path(state), name) for name in names]
    except PvcError as error:
        _complain(str(error))
        return _NO_SUCH_UNIT
    try:
        return max([do(each, Path(state), run) for each in units])
    except (PvcError, OSError) as error:
        _complain(str(error))
        return _FAILED


def _start(unit: Unit, _state: Path, run: Path) -> int:
    """Return when it is ready; one that runs goes on."""
    name = unit.service.name
    first = ask(run, Start(service=unit.service))[name]

    def settled() -> bool:
        now = ask(run, Status())[name]
        if now.starts > first.starts or not now.pid:
            raise SandboxError(f"{name} did not start ({now.last_exit}); see {unit.service.log}")
        return now.ready

    if unit.service.notifies:
        wait_until(f"start of {name}", settled, deadline_s=_START_S)
    return 0


def _stop(unit: Unit, _state: Path, run: Path) -> int:
    """Return when it is gone; what was never started is."""
    service = unit.service
    before = ask(run, Status()).get(service.name)
    if before is not None and before.pid:
        ask(run, Stop(name=service.name))
        wait_until(
            f"end of {service.name}",
            # Somebody may have started it again between two looks.
            lambda: ask(run, Status())[service.name].pid != before.pid,
            deadline_s=service.stop_timeout_s + _LONGER_THAN_STOP_S,
        )
    return 0


def _restart(unit: Unit, state: Path, run: Path) -> int:
    return _stop(unit, state, run) or _start(unit, state, run)


def _reload(unit: Unit, _state: Path, run: Path) -> int:
    name = unit.service.name
    if not unit.reload:
        raise SandboxError(f"{name} cannot be reloaded; restart it")
    if _activity(ask(run, Status()).get(name)) != "active":
        raise SandboxError(f"{name} is not active, so it cannot be reloaded")
    done = run_program(unit.reload, deadline_s=_RELOAD_S)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise SandboxError(f"{name} did not reload (exit status {done.returncode}): {said}")
    return 0


def _enable(unit: Unit, state: Path, _run: Path) -> int:
    boot.enable(state, unit.service)
    return 0


def _disable(unit: Unit, state: Path, _run: Path) -> int:
    boot.disable(state, unit.service.name)
    return 0


def _is_active(unit: Unit, _state: Path, run: Path) -> int:
    return _say(_activity(ask(run, Status()).get(unit.service.name)), "active", _NOT_ACTIVE)


def _is_enabled(unit: Unit, state: Path, _run: Path) -> int:
    return _say("enabled" if boot.is_enabled(state, unit.service.name) else "disabled", "enabled", _FAILED)


def _reset_failed(_unit: Unit, _state: Path, _run: Path) -> int:
    """Succeed: a service that is asked for is started, however often it failed."""
    return 0


_VERBS: Final[dict[str, Callable[[Unit, Path, Path], int]]] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "reload": _reload,
    "enable": _enable,
    "disable": _disable,
    "is-active": _is_active,
    "is-enabled": _is_enabled,
    "reset-failed": _reset_failed,
}


def _activity(state: ServiceState | None) -> str:
    if state is None:
        return "inactive"
    if state.pid and state.wanted:
        return "active" if state.ready else "activating"
    if state.pid:
        return "deactivating"
    if not state.wanted:
        return "inactive"
    return "failed" if state.given_up else "activating"


def _say(word: str, good: str, otherwise: int) -> int:
    sys.stdout.write(f"{word}\n")
    return 0 if word == good else otherwise


def _complain(text: str) -> None:
    sys.stderr.write(f"{PROGRAM}: {text}\n")
