"""The power button of a host, pressed at any moment and from several places."""

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pvc_sandbox.control import NoAnswer, Service
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.host import Host
from pvc_sandbox.waiting import wait_until

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("power")
    yield path
    layout = Host(path, 1).layout
    Host(layout, 1).destroy()
    assert not layout.run.exists()
    assert list(path.iterdir()) == []


@pytest.fixture
def host(directory):
    made = Host(directory, 1)
    start(made)
    return made


def start(host):
    host.start([Service(name="own", argv=("sleep", "1000"), log=str(host.state / "log/own.log"))])


def press(host, button):
    argv = [sys.executable, "-m", "pvc_sandbox.power", host.layout.state, host.name, button]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def services(host):
    try:
        return {name for name, state in host.services().items() if state.pid}
    except NoAnswer:
        return set()


def test_button_cuts_the_power_and_brings_the_host_back_with_its_daemons(host):
    assert press(host, "status").stdout == "on\n"
    assert press(host, "off").returncode == 0
    assert not host.running
    assert press(host, "status").stdout == "off\n"
    assert press(host, "on").returncode == 0
    assert press(host, "status").stdout == "on\n"
    wait_until("its daemons run", lambda: services(host) == {"libvirtd", "own"}, deadline_s=30)


def test_every_press_may_be_repeated(host):
    before = host.power
    assert press(host, "on").returncode == 0
    assert host.power == before, "a host that is on stays as it is"
    for _ in range(2):
        assert press(host, "off").returncode == 0
    assert press(host, "reset").returncode == 0
    assert not host.running, "what is off cannot be reset"
    assert press(host, "on").returncode == 0
    assert press(host, "reset").returncode == 0
    assert host.running
    assert host.power != before


def test_frozen_host_is_cut_like_any_other(host):
    host.freeze()
    assert press(host, "status").stdout == "on\n"
    assert press(host, "off").returncode == 0
    assert not host.running


def test_off_during_a_boot_comes_after_it(host):
    for delay_s in (0.0, 0.05, 0.1, 0.2, 0.4):
        host.power_cut()
        with subprocess.Popen(
            [sys.executable, "-m", "pvc_sandbox.power", host.layout.state, host.name, "on"], stderr=subprocess.DEVNULL
        ) as pressed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                pressed.wait(delay_s)
            host.power_cut()
            pressed.wait(30)
        wait_for_one_or_none(host)
        start(host)
        assert processes_of(host) == 1


def test_buttons_pressed_from_everywhere_at_once_leave_one_host_or_none(host):
    buttons = ["off", "on", "reset", "on", "off", "on", "reset", "off"]
    with ThreadPoolExecutor(len(buttons) + 2) as pool:
        pressed = [pool.submit(press, host, button) for button in buttons]
        pressed += [pool.submit(host.power_cut), pool.submit(start, host)]
        for each in pressed[: len(buttons)]:
            assert each.result().returncode == 0, each.result().stderr
        for each in pressed[len(buttons) :]:
            with contextlib.suppress(SandboxError):  # a start whose host was cut meanwhile
                each.result()
    wait_for_one_or_none(host)
    start(host)
    assert services(host) == {"libvirtd", "own"}


def wait_for_one_or_none(host):
    # A launcher that has just recorded the host's first process is still there for a moment.
    wait_until("one host, or none", lambda: processes_of(host) == int(host.running), deadline_s=10)


def processes_of(host):
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += str(host.state / "init.json").encode() in path.read_bytes().split(b"\0")
    return found


def test_button_of_a_host_that_is_removed_makes_nothing(directory):
    host = Host(directory, 2)
    host.start()
    host.destroy()
    with pytest.raises(SandboxError, match="nothing to boot from"):
        host.boot()
    assert not host.state.exists()
    assert press(host, "on").returncode == 1


def test_button_of_no_sandbox_says_so(tmp_path):
    argv = [sys.executable, "-m", "pvc_sandbox.power", str(tmp_path), "hv1", "status"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"hv1: no sandbox in {tmp_path}\n")
