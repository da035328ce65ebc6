"""Consoles of real guests through a terminal, and daemons that end while guests run."""

import contextlib
import os
import pty
import signal

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, cluster, *arguments):
        self.screen = b""
        self._cluster = cluster
        self._master, slave = pty.openpty()
        try:
            self.process = cluster.start_command(*arguments, stdin=slave, stdout=slave, stderr=slave)
        finally:
            os.close(slave)
        os.set_blocking(self._master, False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def type(self, text):
        os.write(self._master, text)

    def shows(self, text, times=1):
        """Wait until the terminal has shown a text so often."""

        def shown():
            with contextlib.suppress(OSError):  # nothing new, or the command has ended
                self.screen += os.read(self._master, 1 << 16)
            return self.screen.count(text) >= times

        self._cluster.eventually(f"{text!r} on the terminal", shown)


def test_what_is_typed_reaches_the_guest_also_after_its_migration(cluster, guests):
    name = guests.boot_sector(node="hv1")
    with Terminal(cluster, "vm", "console", name) as terminal:
        # Of the guest: what is typed before the terminal is switched to raw is thrown away.
        terminal.shows(b".", times=3)
        terminal.type(b"Q")
        terminal.shows(b"Q")
        cluster.pvc("vm", "move", name, "--node", "hv2")
        terminal.shows(b"is on hv2")
        terminal.type(b"Z")
        terminal.shows(b"Z")
        terminal.type(b"\x1d")
        terminal.shows(b"ended")
        assert terminal.process.wait(30) == 0
    assert "Q" in cluster.consoles(cluster.id(name))["hv1"]
    assert "Z" in cluster.pvc("vm", "log", name)


def test_console_ends_when_the_guest_stops(cluster, guests):
    name = guests.boot_sector(node="hv3")
    with Terminal(cluster, "vm", "console", name) as terminal:
        terminal.shows(b"Ctrl-] ends")
        cluster.pvc("vm", "shutdown", name)
        terminal.shows(b"ended")
        assert terminal.process.wait(30) == 0


def test_log_is_kept_over_restarts_and_while_the_guest_is_off(cluster, guests):
    name = guests.boot_sector(node="hv2")
    id_ = cluster.id(name)
    cluster.eventually("it boots", lambda: "GUEST-UP" in cluster.console(id_))
    cluster.pvc("vm", "restart", name)
    cluster.eventually("it boots again", lambda: cluster.console(id_).count("GUEST-UP") == 2)
    cluster.pvc("vm", "stop", name, "--yes")
    assert cluster.pvc("vm", "log", name).count("GUEST-UP") == 2


def test_killed_daemon_finds_its_guests_again_and_what_was_asked_meanwhile_is_done(cluster, guests):
    stays, changes = guests.boot_sector(node="hv3"), guests.boot_sector(node="hv3")
    ids = {name: cluster.id(name) for name in (stays, changes)}
    emulators = cluster.emulators("hv3", ids[stays])
    crashed = guests.boot_sector(node="hv3")
    claim = cluster.info(stays)["claim"]
    cluster.sandbox.host("hv3").stop_service("pvcnoded")
    cluster.pvc("vm", "stop", changes, "--yes", "--no-wait")
    cluster.kill_emulator("hv3", cluster.id(crashed))
    assert cluster.emulators("hv3", ids[stays]) == emulators
    cluster.sandbox.power_on("hv3")
    cluster.sandbox.wait_ready(["hv3"])
    cluster.signal("hv3", signal.SIGKILL)
    cluster.eventually("it is stopped", lambda: cluster.place(changes) == ("stopped", None))
    cluster.eventually("it runs again", lambda: cluster.place(crashed) == ("running", "hv3"))
    cluster.eventually("it is adopted", lambda: cluster.info(stays)["claim"]["lease"] >= claim["lease"] + 2)
    assert cluster.emulators("hv3", ids[stays]) == emulators
    assert cluster.info(stays)["claim"]["epoch"] == claim["epoch"]
    assert cluster.copies(ids[changes]) == {}
