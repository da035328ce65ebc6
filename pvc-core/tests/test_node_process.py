"""What the daemon's process is made of: run directory, service manager, logs."""

import json
import logging
import os
import socket
import sys

import pytest

from pvc_core.node.host import LinuxHost
from pvc_core.node.logs import JsonFormatter, TextFormatter
from pvc_core.node.notify import ServiceManager
from pvc_core.node.rundir import AlreadyRunning, RunDirectory


def test_a_run_directory_is_used_by_one_daemon_at_a_time(tmp_path):
    first = RunDirectory(tmp_path / "run")
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        RunDirectory(tmp_path / "run")
    first.close()
    RunDirectory(tmp_path / "run").close()


def test_a_daemon_knows_all_that_died_before_it_until_it_has_the_lease(tmp_path):
    directory = RunDirectory(tmp_path)
    first = directory.succeed()
    assert first.predecessor == ""
    second = directory.succeed()
    third = directory.succeed()
    assert third.predecessor.split() == [first.holder, second.holder]
    directory.settle(third.holder)
    assert directory.succeed().predecessor == third.holder
    directory.close()


def test_the_host_tells_who_it_is_and_when_it_was_started():
    first, second = LinuxHost().figures(), LinuxHost().figures()
    assert first.boot_id == second.boot_id
    assert "." in first.boot_id
    assert first.kernel
    assert first.load1 >= 0


@pytest.fixture
def manager_socket(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def test_the_service_manager_is_told(manager_socket, tmp_path):
    manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
    assert manager.watchdog_s == 30
    manager.ready("all well")
    manager.alive()
    manager.waiting("the store")
    manager.reloading(1.5)
    manager.stopping()
    told = [manager_socket.recv(1000).decode() for _ in range(5)]
    assert told == [
        "READY=1\nSTATUS=all well",
        "WATCHDOG=1",
        "STATUS=the store\nEXTEND_TIMEOUT_USEC=60000000",
        "RELOADING=1\nMONOTONIC_USEC=1500000",
        "STOPPING=1",
    ]


def test_an_abstract_socket_works_too():
    name = f"@pvc-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:])
        receiver.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": name}).status("hello")
        assert receiver.recv(100) == b"STATUS=hello"


def test_without_a_service_manager_nothing_happens():
    manager = ServiceManager({})
    assert manager.watchdog_s is None
    manager.ready("x")


def test_a_watchdog_meant_for_another_process_is_not_ours():
    assert ServiceManager({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_s is None


def test_a_manager_that_is_gone_costs_a_line_in_the_log_only(tmp_path, caplog):
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "none")}).alive()
    assert "notify-failed" in caplog.text


def record(message, *arguments, error=None):
    return logging.LogRecord("pvc_core.node.x", logging.WARNING, "x.py", 1, message, arguments, error)


def test_text_lines_have_time_level_logger_event_and_fields():
    line = TextFormatter(journal=False).format(record("vm-started vm=%s", "a"))
    stamp, rest = line.split(" ", 1)
    assert rest == "warning pvc_core.node.x vm-started vm=a"
    assert stamp[10] == "T"


def test_for_the_journal_each_line_has_its_priority_and_no_time():
    try:
        raise ValueError("boom")
    except ValueError:
        lines = TextFormatter(journal=True).format(record("bad x=1", error=sys.exc_info())).splitlines()
    assert lines[0] == "<4>warning pvc_core.node.x bad x=1"
    assert all(line.startswith("<4>") for line in lines)
    assert lines[-1].endswith("ValueError: boom")


def test_json_lines_have_the_fields_of_the_event():
    line = JsonFormatter().format(
        record("reconcile-failed kind=%s id=%s why=%r retry_s=%.1f", "vm", "a b", "no, it's", 2)
    )
    event = json.loads(line)
    assert event["event"] == "reconcile-failed"
    assert (event["kind"], event["why"], event["retry_s"]) == ("vm", "no, it's", "2.0")
    assert event["level"] == "warning"
    assert event["message"].startswith("reconcile-failed kind=vm")


def test_a_field_cannot_replace_what_the_logger_says():
    event = json.loads(JsonFormatter().format(record("x level=debug event=fake")))
    assert (event["level"], event["event"]) == ("warning", "x")
