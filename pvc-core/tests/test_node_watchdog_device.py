"""Watchdog devices: the kernel's, with its answers played back, and a program behind a socket."""

import contextlib
import errno
import socket
import struct
import subprocess
import threading

import pytest

from pvc_core.node import watchdog_device
from pvc_core.node.watchdog_device import WatchdogError, open_device

INFO = struct.Struct("=II32s")


class Kernel:
    """Answers as a driver of the kernel's watchdog core does."""

    def __init__(self):
        self.options = 0x8180
        self.identity = b"i6300ESB timer"
        self.timeout = None
        self.granted = None
        self.nowayout = False
        self.can_set = True
        self.options_known = True
        self.written = b""
        self.stopped = False

    def ioctl(self, file, request, argument):
        del file
        if request == watchdog_device.WDIOC_GETSUPPORT:
            return INFO.pack(self.options, 0, self.identity)
        if request == watchdog_device.WDIOC_SETTIMEOUT:
            if not self.can_set:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            (self.timeout,) = struct.unpack("=i", argument)
        elif request == watchdog_device.WDIOC_GETTIMEOUT:
            return struct.pack("=i", self.granted if self.granted is not None else self.timeout)
        elif request == watchdog_device.WDIOC_SETOPTIONS:
            if not self.options_known:
                raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
            if self.nowayout:
                raise OSError(errno.EBUSY, "Device or resource busy")
            self.stopped = True
        else:
            raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
        return argument

    def write(self, file, data):
        del file
        self.written += data
        return len(data)


@pytest.fixture
def kernel(monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(watchdog_device.fcntl, "ioctl", kernel.ioctl)
    monkeypatch.setattr(watchdog_device.os, "write", kernel.write)
    monkeypatch.setattr(watchdog_device, "_nowayout", lambda file, identity: kernel.nowayout)
    return kernel


def test_a_kernels_watchdog_is_armed_and_fed_when_it_is_opened(kernel):
    device = open_device("/dev/null", 12.9)
    assert kernel.timeout == 12
    assert device.timeout_s == 12.0
    assert kernel.written == b"\0"
    device.feed()
    assert kernel.written == b"\0\0"
    assert device.about == "/dev/null (i6300ESB timer)"
    device.disarm()
    assert kernel.stopped
    assert b"V" not in kernel.written, "no mark is left for the next one"


def test_a_driver_without_a_stop_has_the_magic_character(kernel):
    kernel.options_known = False
    open_device("/dev/null", 10.0).disarm()
    assert kernel.written == b"\0V"


def test_the_time_out_that_the_driver_says_counts(kernel):
    kernel.granted = 8
    assert open_device("/dev/null", 10.0).timeout_s == 8.0


def test_a_driver_with_a_fixed_time_out_is_taken_at_its_word(kernel):
    kernel.can_set, kernel.granted = False, 60
    assert open_device("/dev/null", 10.0).timeout_s == 60.0


def test_a_driver_that_does_not_say_its_time_out_is_refused_and_stopped(kernel):
    kernel.granted = 0
    with pytest.raises(WatchdogError, match="does not say its time-out"):
        open_device("/dev/null", 10.0)
    assert kernel.stopped


def test_a_driver_that_stops_when_its_process_dies_is_refused(kernel):
    kernel.options = 0x8080
    with pytest.raises(WatchdogError, match="nowayout=1"):
        open_device("/dev/null", 10.0)
    assert kernel.stopped


def test_one_that_can_never_be_stopped_says_so_before_and_after(kernel):
    kernel.options, kernel.nowayout = 0x8080, True
    device = open_device("/dev/null", 10.0)
    assert "stopping pvcnoded resets the node" in device.about
    with pytest.raises(WatchdogError, match="cannot be disarmed"):
        device.disarm()


def test_software_is_called_so(kernel):
    kernel.identity = b"Software Watchdog"
    assert "may never be reset" in open_device("/dev/null", 10.0).about


def test_what_is_not_a_watchdog_is_refused(tmp_path):
    with pytest.raises(WatchdogError, match="/dev/zero: Inappropriate ioctl"):
        open_device("/dev/zero", 10.0)
    with pytest.raises(WatchdogError, match="No such file or directory; is the watchdog's kernel module loaded"):
        open_device("/dev/watchdog-absent", 10.0)
    (tmp_path / "file").touch()
    with pytest.raises(WatchdogError, match="neither a watchdog device nor a socket"):
        open_device(str(tmp_path / "file"), 10.0)


@pytest.mark.real
def test_the_numbers_are_those_of_the_kernels_header(tmp_path):
    names = [
        "WDIOC_GETSUPPORT",
        "WDIOC_SETOPTIONS",
        "WDIOC_SETTIMEOUT",
        "WDIOC_GETTIMEOUT",
        "WDIOF_MAGICCLOSE",
        "WDIOS_DISABLECARD",
    ]
    checks = "".join(f"_Static_assert({name} == {getattr(watchdog_device, name)}u, {name!r});\n" for name in names)
    source = tmp_path / "numbers.c"
    source.write_text(f"#include <linux/watchdog.h>\n{checks}".replace("'", '"'))
    subprocess.run(["gcc", "-fsyntax-only", str(source)], check=True, timeout=60)


class StandIn:
    """A program behind a socket: one connection at a time, and its countdown goes on without any."""

    def __init__(self, path):
        self.path = str(path)
        self.lines = []
        self.answers = {"timeout": lambda rest: f"timeout {rest}\n", "disarm": lambda _: "disarmed\n"}
        self.silent = False
        self._change = threading.Condition()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(4)
        self._link = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                self._link, _ = self._listener.accept()
            except OSError:
                return
            with self._link, self._link.makefile("r") as lines:
                for line in lines:
                    word, _, rest = line.strip().partition(" ")
                    if word in self.answers and not self.silent:
                        self._link.sendall(self.answers[word](rest).encode())
                    with self._change:
                        self.lines.append(line.strip())
                        self._change.notify_all()

    def hang_up(self):
        self._link.shutdown(socket.SHUT_RDWR)

    def heard(self, *lines):
        with self._change:
            return self._change.wait_for(lambda: self.lines == list(lines), 5.0)

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def stand_in(tmp_path):
    stand_in = StandIn(tmp_path / "watchdog.sock")
    yield stand_in
    stand_in.close()


@pytest.fixture
def opened(stand_in):
    devices = []

    def open_it(timeout_s):
        devices.append(open_device(stand_in.path, timeout_s))
        return devices[-1]

    yield open_it
    for device in devices:
        device._link.close()


def test_a_stand_in_is_armed_fed_and_disarmed(stand_in, opened):
    device = opened(2.5)
    assert device.timeout_s == 2.5
    device.feed()
    device.disarm()
    assert stand_in.heard("timeout 2.5", "feed", "disarm")


def test_the_time_out_that_a_stand_in_says_counts(stand_in, opened):
    stand_in.answers["timeout"] = lambda _: "timeout 4\n"
    assert opened(2.5).timeout_s == 4.0


@pytest.mark.parametrize("answer", ["timeout\n", "timeout nan\n", "timeout -1\n", "error no\n", "\n", "x" * 300])
def test_a_stand_in_that_answers_something_else_is_refused(stand_in, opened, answer):
    stand_in.answers["timeout"] = lambda _: answer
    with pytest.raises(WatchdogError, match=r"answer"):
        opened(2.5)


def test_a_lost_connection_is_made_again_and_feeding_goes_on(stand_in, opened):
    device = opened(3.0)
    stand_in.hang_up()
    device.feed()
    device.feed()
    assert stand_in.heard("timeout 3", "timeout 3", "feed") or stand_in.heard("timeout 3", "feed", "timeout 3", "feed")


def test_another_stand_in_with_a_longer_time_out_is_not_fed(stand_in, opened):
    device = opened(3.0)
    stand_in.answers["timeout"] = lambda _: "timeout 30\n"
    stand_in.hang_up()
    with pytest.raises(WatchdogError, match=r"has a time-out of 30 s now, instead of 3 s"):
        device.feed()


def test_a_stand_in_that_hangs_is_waited_for_no_longer_than_its_deadline(stand_in, opened, monkeypatch):
    monkeypatch.setattr(watchdog_device, "ANSWER_S", 0.05)
    stand_in.silent = True
    with pytest.raises(WatchdogError, match="did not answer 'timeout 3': timed out"):
        opened(3.0)


def test_a_stand_in_that_is_gone_cannot_be_fed(stand_in, opened):
    device = opened(3.0)
    stand_in.close()
    stand_in.hang_up()
    for _ in range(2):
        with pytest.raises(WatchdogError, match="takes no connection: Connection refused"):
            device.feed()
