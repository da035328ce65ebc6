"""The daemon's process without a cluster around it: exit status, messages, signals."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "pvcnoded.yml"
    path.write_text(
        f"""
cluster:
  coordinators: [{{name: hv1, address: 127.0.0.1}}]
  zookeeper: {{port: 1}}
node:
  name: hv1
  address: 127.0.0.1
  state_directory: {tmp_path}/state
  run_directory: {tmp_path}/run
  console_directory: {tmp_path}/console
hypervisor: {{uri: "qemu+unix:///system?socket={tmp_path}/none"}}
"""
    )
    return path


@pytest.fixture
def start(tmp_path):
    started = []

    def run(path, *arguments, **environment):
        log = (tmp_path / f"log-{len(started)}").open("w+")
        process = subprocess.Popen(
            [sys.executable, "-m", "pvc_core.node.main", "--config", str(path), *arguments],
            stderr=log,
            env=os.environ | environment,
        )
        process.log = tmp_path / log.name
        log.close()
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(10)


def wait_for(process, words, within_s=20):
    end = time.monotonic() + within_s
    while words not in process.log.read_text():
        assert process.poll() is None, process.log.read_text()
        assert time.monotonic() < end, process.log.read_text()
        time.sleep(0.05)


def test_without_a_configuration_it_ends_with_78_and_names_the_file(start, tmp_path):
    process = start(tmp_path / "none.yml")
    assert process.wait(20) == 78
    assert f"{tmp_path}/none.yml" in process.log.read_text()
    assert "Traceback" not in process.log.read_text()


def test_a_wrong_configuration_ends_with_78_and_is_explained(start, config):
    config.write_text(config.read_text() + "timing: {leese: 10}\n")
    process = start(config)
    assert process.wait(20) == 78
    assert "lease" in process.log.read_text()
    assert start(config, "--check").wait(20) == 78


def test_check_says_nothing_about_a_right_one(start, config):
    process = start(config, "--check")
    assert process.wait(20) == 0
    assert process.log.read_text() == ""


def test_it_waits_for_the_state_store_and_ends_when_asked(start, config, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        process = start(config, NOTIFY_SOCKET=str(tmp_path / "notify"))
        wait_for(process, "store-not-ready")
        told = manager.recv(2000).decode()
        while "EXTEND_TIMEOUT_USEC" not in told:
            told = manager.recv(2000).decode()
        assert "waiting for the state store" in told
    assert "127.0.0.1:1" in process.log.read_text()
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert time.monotonic() - begun < 6
    assert "Traceback" not in process.log.read_text()


def test_a_second_daemon_on_the_same_run_directory_is_refused(start, config):
    first = start(config)
    wait_for(first, "store-not-ready")
    second = start(config)
    assert second.wait(20) == 1
    assert f"another pvcnoded (process {first.pid})" in second.log.read_text()
    assert first.poll() is None


def test_logs_can_be_json_lines(start, config):
    import json

    config.write_text(config.read_text() + "logging: {format: json, level: debug}\n")
    process = start(config)
    wait_for(process, "store-not-ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    events = [json.loads(line) for line in process.log.read_text().splitlines()]
    starting = next(event for event in events if event["event"] == "daemon-starting")
    assert (starting["node"], starting["role"]) == ("hv1", "coordinator")


def test_sigusr1_prints_the_stacks_and_the_daemon_goes_on(start, config):
    process = start(config)
    wait_for(process, "store-not-ready")
    process.send_signal(signal.SIGUSR1)
    wait_for(process, "most recent call first")
    assert process.poll() is None
