"""The watchdog of a host: its arithmetic, and what a real host gets of it."""

import contextlib
import os
import signal
import socket
import sys
from types import SimpleNamespace

import pytest

from pvc_sandbox.boot import Watchdog
from pvc_sandbox.control import Service
from pvc_sandbox.host import WATCHDOG_SOCKET, Host
from pvc_sandbox.records import living
from pvc_sandbox.waiting import wait_until
from pvc_sandbox.watchdog import Countdown


def test_nothing_is_counted_until_it_is_fed():
    countdown = Countdown()
    assert countdown.left_s(1e9) is None
    countdown.obey("feed", 100.0)
    assert countdown.left_s(104.0) == 6.0


def test_new_timeout_feeds():
    countdown = Countdown()
    assert countdown.obey("timeout 4", 100.0) == "timeout 4"
    assert countdown.left_s(101.0) == 3.0
    assert countdown.obey("timeout 2.5", 101.0) == "timeout 2.5"
    assert countdown.left_s(101.0) == 2.5
    assert countdown.obey("feed", 103.0) == ""
    assert countdown.left_s(103.0) == 2.5


def test_disarmed_it_counts_no_more():
    countdown = Countdown()
    countdown.obey("feed", 0.0)
    assert countdown.obey("disarm", 1.0) == "disarmed"
    assert countdown.left_s(99.0) is None


@pytest.mark.parametrize("line", ["feed", "disarm", "timeout 60"])
def test_nothing_helps_when_the_time_is_over(line):
    countdown = Countdown()
    countdown.obey("timeout 5", 0.0)
    assert countdown.obey(line, 5.0) == "error too late"
    assert countdown.left_s(5.0) == 0.0


@pytest.mark.parametrize(
    "line", ["", "bark", "timeout", "timeout x", "timeout nan", "timeout 0", "timeout 601", "feed it"]
)
def test_nonsense_is_refused_and_does_not_feed(line):
    countdown = Countdown()
    countdown.obey("timeout 5", 0.0)
    assert countdown.obey(line, 2.0).startswith("error ")
    assert countdown.left_s(2.0) == 3.0


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("watchdog")
    yield path
    layout = Host(path, 1).layout
    Host(layout, 1).destroy()
    assert not layout.run.exists()


@pytest.fixture
def guarded(directory):
    """Start a host with a watchdog."""
    made = Host(directory, 1)
    made.power_cut()

    def start(**fields):
        own = Service(name="own", argv=("sleep", "1000"), log=str(made.state / "log/own.log"))
        made.start([own], watchdog=Watchdog(**fields))
        return made

    return start


@contextlib.contextmanager
def opened(host):
    with socket.socket(socket.AF_UNIX) as device:
        device.settimeout(5)
        device.connect(str(host.run / WATCHDOG_SOCKET))
        with device.makefile("rb") as lines:

            def say(line, *, answer=True):
                device.sendall(line.encode() + b"\n")
                return lines.readline().decode().strip() if answer else ""

            yield SimpleNamespace(say=say, lines=lines)


def log(host):
    path = host.state / "log/watchdog.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.real
def test_host_that_hangs_is_reset_and_comes_back_with_its_daemons(guarded):
    host = guarded(reboot_s=0.2)
    before = host.power
    with opened(host) as device:
        assert device.say("timeout 0.5") == "timeout 0.5"
        host.freeze()
        wait_until("the watchdog resets it", lambda: host.power != before, deadline_s=10)
    wait_until("it is on again", lambda: host.running and "power is on" in log(host), deadline_s=10)
    assert {name for name, state in host.services().items() if state.pid} == {"libvirtd", "own"}
    with opened(host) as device:
        assert device.say("disarm") == "disarmed"


@pytest.mark.real
def test_watchdog_is_fed_from_within_and_outlives_a_daemon_that_dies(guarded):
    host = guarded(reboot_s=-1)
    before = host.power
    program = (
        "import socket, time\n"
        "s = socket.socket(socket.AF_UNIX); s.connect('/run/watchdog.sock')\n"
        "s.sendall(b'timeout 1\\n'); assert s.recv(99) == b'timeout 1\\n'\n"
        "for _ in range(20): s.sendall(b'feed\\n'); time.sleep(0.1)\n"
        "print('fed', flush=True)\n"
    )
    assert host.exec([sys.executable, "-c", program]).check().stdout == "fed\n"
    assert host.power == before, "it was fed for twice its time"
    wait_until("the daemon that fed it has ended: it resets", lambda: not host.running, deadline_s=10)
    assert "closed" in log(host)
    watchdog = host.layout.watchdog_record(1)
    wait_until("it has ended too, and the host stays off", lambda: living(watchdog) is None, deadline_s=5)
    assert not host.running


@pytest.mark.real
def test_next_connection_takes_over_and_feeds_in_time(guarded):
    host = guarded()
    before = host.power
    with opened(host) as first:
        first.say("timeout 2")
        with opened(host) as second:
            assert first.lines.read() == b"", "there is one open device only"
            second.say("feed", answer=False)
            assert second.say("bark").startswith("error")
            assert second.say("disarm") == "disarmed"
    assert host.power == before


@pytest.mark.real
def test_power_cut_ends_the_watchdog_and_a_reset_that_is_under_way(guarded):
    host = guarded(reboot_s=30)
    record = host.layout.watchdog_record(1)
    with opened(host) as device:
        device.say("timeout 0.5")
    wait_until("the watchdog has cut the power", lambda: not host.running, deadline_s=10)
    assert living(record) is not None, "it waits to switch it on again"
    host.power_cut()
    assert living(record) is None
    host.boot()
    assert living(record) is not None
    host.power_cut()
    assert living(record) is None


@pytest.mark.real
def test_killed_watchdog_is_there_again_after_the_next_start(guarded):
    host = guarded()
    before = host.power
    record = host.layout.watchdog_record(1)
    os.kill(living(record).pid, signal.SIGKILL)
    wait_until("it is gone", lambda: living(record) is None, deadline_s=5)
    host.start(watchdog=Watchdog())
    assert host.power == before
    with opened(host) as device:
        assert device.say("timeout 60") == "timeout 60"


@pytest.mark.real
def test_host_whose_first_process_is_killed_takes_its_watchdog_along(guarded):
    host = guarded()
    record = host.layout.watchdog_record(1)
    with opened(host) as device:
        device.say("timeout 60")
    os.kill(host.pid, signal.SIGKILL)
    wait_until("it is gone", lambda: living(record) is None, deadline_s=5)
    assert not host.running


@pytest.mark.real
def test_host_without_a_watchdog_has_no_socket(guarded):
    host = guarded()
    host.start()
    assert not (host.run / WATCHDOG_SOCKET).exists()
    assert living(host.layout.watchdog_record(1)) is None
