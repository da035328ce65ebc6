"""This node's FRR: asked and told through vtysh(1), changed by its own frr-reload.py, started by systemd.

What we want is merged with what the operator has (``text``) and FRR itself brings its running configuration to the
result, so sessions whose lines do not change stay up. What we rendered is kept in a file, so that after a restart of
the daemon exactly our old lines are taken out.

The operator's part is read from the running configuration; only when ``frr.conf`` was edited since we had it written,
from there, because frr-reload.py writes the file anew at its end and would lose the edit. Changes that the operator
made in vtysh and did not save are therefore saved with ours.
"""

import contextlib
import hashlib
import os
import re
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from pvc_core.plugin import Completed, DeadlineExceeded, DriverError, NotReady, Run
from pvc_vxlan.config import VxlanConfig
from pvc_vxlan.evpn import text
from pvc_vxlan.evpn.render import Fabric, render

_VTYSH_S: Final = 10.0
_VIEW_S: Final = 3.0
"""A daemon that has not answered in this time hangs."""
_RELOAD_S: Final = 30.0
_SERVICE_S: Final = 30.0
_NEEDED: Final = frozenset({"zebra", "bgpd"})
_ENABLED: Final = re.compile(r"^\s*([a-z0-9]+d)=[\"']?yes", re.MULTILINE)
_VERSION: Final = re.compile(r"FRRouting (\S+)")
_PAUSE_S: Final = 0.1


class Written(Struct, frozen=True, kw_only=True):
    """What we remember of FRR across our restarts."""

    ours: tuple[text.Path, ...] = ()
    """Lines of ours that may be in FRR."""
    saved: str = ""
    """SHA-256 of ``frr.conf`` as it was after our last change."""


class View(Struct, frozen=True, kw_only=True):
    """What one call of vtysh says about FRR."""

    daemons: frozenset[str] = frozenset()
    """Those that answer."""
    summary: str = ""
    """``show bgp summary json``."""
    running: str = ""
    """``show running-config``; empty unless zebra and bgpd answer."""
    problem: str = ""
    """Why the rest is missing."""
    hangs: bool = False
    """A daemon is there, but does not answer."""

    @property
    def whole(self) -> bool:
        """Whether the daemons that we need answer."""
        return self.daemons >= _NEEDED and not self.problem


class Frr:
    """FRR on this node; one thread at a time.

    ``state`` is the plugin's own directory for lasting files. ``sockets`` is the directory of the daemons' vty sockets,
    empty: FRR's own.
    """

    def __init__(
        self, run: Run, config: VxlanConfig, *, state: Path, sockets: str = "", programs: str = "/usr/lib/frr"
    ) -> None:
        self._run: Final = run
        self._unit: Final = config.frr_service
        self._directory: Final = Path(config.frr_directory)
        self._state: Final = state
        self._sockets: Final = sockets
        self._reload: Final = f"{programs}/frr-reload.py"

    def view(self) -> View:
        """Ask for all that health needs at once; never raises for an FRR that does not run or hangs."""
        commands = ("show daemons", "show bgp summary json", "show running-config no-header")
        try:
            asked = self._vtysh(*(word for command in commands for word in ("-c", command)), deadline_s=_VIEW_S)
        except DeadlineExceeded:
            return View(problem=f"it does not answer within {_VIEW_S:g} s", hangs=True)
        except DriverError as error:
            return View(problem=str(error))
        first, _, rest = asked.stdout.partition("\n")
        daemons = frozenset(first.split())
        absent = sorted(_NEEDED - daemons)
        if asked.returncode or absent:
            said = asked.stderr.strip() or "it said nothing"
            return View(daemons=daemons, problem=f"not running: {', '.join(absent)}" if absent else f"vtysh: {said}")
        start = re.search(r"^frr version ", rest, re.MULTILINE)
        if not start:
            return View(daemons=daemons, problem="vtysh did not show the running configuration")
        return View(daemons=daemons, summary=rest[: start.start()].strip(), running=rest[start.start() :])

    def show(self, command: str) -> str:
        """Return what FRR answers to a ``show`` command, such as ``show evpn vni json``; raises NotReady when it
        does not run.
        """
        asked = self._vtysh("-c", command)
        if asked.returncode:
            raise NotReady(f"FRR does not answer '{command}': {_said(asked)}")
        return asked.stdout

    def version(self) -> str:
        """Return FRR's version, such as 8.4.4."""
        found = _VERSION.search(self.show("show version"))
        if not found:
            raise DriverError("FRR does not say its version")
        return found[1]

    def active(self) -> bool:
        """Return whether systemd has the unit running."""
        return self._run(["systemctl", "is-active", self._unit], deadline_s=_SERVICE_S).returncode == 0

    def start(self, *, anew: bool = False) -> None:
        """Start the unit, also one that systemd gave up on; ``anew``: restart it, by which all sessions of this node go
        down.

        Raises NotReady when the unit would not have bgpd: Debian's package enables zebra only.
        """
        if "bgpd" not in self._enabled():
            raise NotReady(f"bgpd is not enabled: write bgpd=yes in {self._directory}/daemons")
        # Debian's unit is not started more than three times in three minutes until its failures are forgotten; for one
        # that did not fail, systemd has nothing to forget and may say so.
        self._run(["systemctl", "reset-failed", self._unit], deadline_s=_SERVICE_S)
        self._run(["systemctl", "restart" if anew else "start", self._unit], deadline_s=_SERVICE_S).check()

    def answering(self, *, within_s: float) -> View:
        """Wait until zebra and bgpd answer; raises NotReady after ``within_s`` seconds."""
        end = time.monotonic() + within_s
        while not (view := self.view()).whole:
            if time.monotonic() > end:
                raise NotReady(f"FRR was started, but after {within_s:g} s it is not ready: {view.problem}")
            time.sleep(_PAUSE_S)
        return view

    def differs(self, fabric: Fabric, running: str) -> bool:
        """Return whether FRR runs something else than it should, as far as it is ours."""
        tree = text.parse(running)
        target, _ = _target(fabric, *text.split(tree, self._written().ours))
        return set(text.paths(target)) != set(text.paths(tree))

    def apply(self, fabric: Fabric | None) -> bool:
        """Bring FRR to our configuration, all of it or nothing; None takes ours out. Returns whether anything changed.

        A bgpd that lost its configuration reads the saved one first. Raises NotReady when not all enabled daemons
        answer (what they have would be lost when FRR saves), ConfigError for a password that FRR cannot hold,
        DriverError with FRR's own words when it refuses the result.
        """
        restored = self._restore()
        view = self._complete_view()
        target, ours = _target(fabric, *self._parts(text.parse(view.running)))
        before = set(text.paths(text.parse(view.running)))
        if set(text.paths(target)) == before:
            self._remember(ours)
            return restored
        wanted = self._private("frr.wanted", text.dump(target))
        self._check(wanted)
        known = self._written()
        self._save(Written(ours=tuple({*known.ours, *ours}), saved=known.saved))
        # frr-reload.py writes the file anew, also when it fails.
        edited = self._keep_edit(known)
        self._prepare(target, before)
        said = self._reloaded(wanted)
        after = set(text.paths(text.parse(self._complete_view().running)))
        missing = [path for path in ours if path not in after]
        if said or missing:
            self._reloaded(self._private("frr.before", view.running.splitlines()))
            self._save(Written(ours=known.ours, saved=self._file_hash()))
            what = said or f"it did not take the line '{missing[0][-1]}'"
            raise DriverError(
                f"FRR refused its new configuration and was put back as it was: {what}{edited}", retryable=False
            )
        wished = set(text.paths(target))
        self._remember([*ours, *(path for path in known.ours if path in after and path not in wished)])
        return True

    def _vtysh(self, *words: str, deadline_s: float = _VTYSH_S) -> Completed:
        argv = ["vtysh", "--config_dir", str(self._directory)]
        if self._sockets:
            argv += ["--vty_socket", self._sockets]
        return self._run([*argv, *words], deadline_s=deadline_s)

    def _restore(self) -> bool:
        """Have a bgpd that came up empty read ``frr.conf`` again, with what the operator has there; return whether that
        was needed.

        watchfrr does so after a restart of its own; a restart by hand does not.
        """
        running = text.parse(self._complete_view().running)
        if _has_router(running) or not _has_router(self._saved_tree()):
            return False
        said = self._vtysh("-b")
        # Some lines may not be told twice, and watchfrr may do the same at this moment: what is missing then is
        # compared next.
        if said.returncode and not _has_router(text.parse(self._complete_view().running)):
            raise DriverError(f"FRR does not take {self._directory}/frr.conf back: {_said(said)}")
        return True

    def _complete_view(self) -> View:
        view = self.view()
        if not view.whole:
            raise NotReady(f"FRR is not ready: {view.problem}")
        if absent := sorted(self._enabled() - view.daemons):
            raise NotReady(
                f"FRR's {', '.join(absent)} do not run, though {self._directory}/daemons enables them: changing FRR "
                "now would save its configuration without theirs"
            )
        return view

    def _enabled(self) -> set[str]:
        try:
            return set(_ENABLED.findall((self._directory / "daemons").read_text("utf-8", "replace")))
        except FileNotFoundError:
            return set(_NEEDED)

    def _parts(self, running: text.Tree) -> tuple[text.Tree, list[text.Path]]:
        known = self._written()
        operators, left = text.split(running, known.ours)
        if known.saved and self._file_hash() != known.saved and (saved := self._saved_tree()):
            operators, _ = text.split(saved, known.ours)
        return operators, left

    def _keep_edit(self, known: Written) -> str:
        """Copy a ``frr.conf`` that was edited since we had it written; return where to, for an error."""
        if not known.saved or self._file_hash() in ("", known.saved):
            return ""
        content = (self._directory / "frr.conf").read_text("utf-8", "replace")
        return f" (the edited frr.conf is kept in {self._private('frr.edited', content.splitlines())})"

    def _check(self, path: Path) -> None:
        checked = self._vtysh("-C", "-f", str(path))
        if checked.returncode:
            raise DriverError(
                f"FRR refuses the configuration that was made for it, and nothing was changed: {_said(checked)} "
                f"(see {path}; lines that are not about pvc are those of its operator, in {self._directory}/frr.conf)",
                retryable=False,
            )

    def _prepare(self, target: text.Tree, before: set[text.Path]) -> None:
        """Say by itself what frr-reload.py would say twice, and FRR 8.4 refuses the second time."""
        line = "bgp graceful-restart-disable"
        for path in text.paths(target):
            if path[-1] == line and len(path) == 2 and path not in before:
                said = self._vtysh("-c", "configure", "-c", path[0], "-c", line)
                if said.returncode:
                    raise DriverError(f"FRR refused '{line}': {_said(said)}")

    def _reloaded(self, path: Path) -> str:
        """Have FRR take a whole configuration and save it; return what it complained about."""
        # --rundir: it writes the lines there, passwords too, in a file that all may read.
        argv = [self._reload, "--reload", "--log-level", "error", "--confdir", str(self._directory)]
        argv += ["--rundir", str(self._state)]
        if self._sockets:
            argv += ["--vty_socket", self._sockets]
        done = self._run([*argv, str(path)], deadline_s=_RELOAD_S)
        return _said(done) if done.returncode else ""

    def _private(self, name: str, lines: list[str]) -> Path:
        """Write a file that only root can read: it may hold passwords."""
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        path, new = self._state / name, self._state / f"{name}.new"
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        with new.open("w", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        return path

    def _remember(self, ours: list[text.Path]) -> None:
        written = Written(ours=tuple(ours), saved=self._file_hash())
        if written != self._written():
            self._save(written)

    def _save(self, written: Written) -> None:
        self._private("frr.json", [msgspec.json.encode(written).decode()])

    def _written(self) -> Written:
        try:
            return msgspec.json.decode((self._state / "frr.json").read_bytes(), type=Written)
        except FileNotFoundError:
            return Written()
        except msgspec.DecodeError as error:
            raise DriverError(
                f"{self._state}/frr.json is damaged ({error}); remove it: our lines are then told by their names",
                retryable=False,
            ) from error

    def _file_hash(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return hashlib.sha256((self._directory / "frr.conf").read_bytes()).hexdigest()
        return ""

    def _saved_tree(self) -> text.Tree:
        try:
            return text.parse((self._directory / "frr.conf").read_text("utf-8", "replace"))
        except FileNotFoundError:
            return {}


def _target(fabric: Fabric | None, operators: text.Tree, left: list[text.Path]) -> tuple[text.Tree, list[text.Path]]:
    """Return the operator's part with ours in it, and the lines of ours that are in the result; None: nothing of
    ours.
    """
    lines = [] if fabric is None else render(fabric, ipv4_default=not text.says_no_ipv4_default(operators))
    ours = text.parse("\n".join(lines))
    target = text.merge(operators, ours, left)
    present = set(text.paths(target))
    return target, [path for path in text.paths(ours) if path in present]


def _has_router(tree: text.Tree) -> bool:
    return any(line.startswith("router bgp") for line in tree)


def _said(done: Completed) -> str:
    lines = [line.strip() for line in (*done.stdout.splitlines(), *done.stderr.splitlines()) if line.strip()]
    return " / ".join(lines[-6:]) or f"status {done.returncode}"
