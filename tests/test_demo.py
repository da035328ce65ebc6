"""The demo that the README names: from nothing to its last line, also after it was killed."""

import os
import re
import subprocess
import sys

import pytest

from pvc_sandbox.sandbox import Sandbox

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture
def name():
    made = f"demo-{os.getpid()}"
    yield made
    Sandbox(made).down()


def start(name):
    return subprocess.Popen(
        [sys.executable, "-m", "pvc_sandbox.demo", "--name", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_demo_goes_on_after_it_was_killed_and_comes_to_its_end(name):
    for moment in ("$ pvc node flush", "nobody is told"):  # in the midst of an evacuation, after a power cut
        with start(name) as killed:
            for line in killed.stdout:
                if moment in line:
                    break
            killed.kill()
    with start(name) as demo:
        said = demo.communicate()[0]
    assert demo.returncode == 0, said
    assert "longest time without an answer" in said
    told = re.findall(r"^ +([\d.]+) s  (\w+)", said, re.MULTILINE)
    assert [word for _, word in told][1:5] == ["suspected", "fencing", "proven", "recovered"]
    assert [float(seconds) for seconds, _ in told] == sorted(float(seconds) for seconds, _ in told)
    assert "No number was told by two nodes" in said
    assert f"export PVC_CONFIG=/var/lib/pvc-sandbox/{name}/pvc.yml" in said
    running = [vm["name"] for vm in Sandbox(name).pvc.rows("vm", "list") if vm["state"] == "running"]
    assert running == ["web1"]


def test_step_that_does_not_work_ends_the_demo_in_one_line(name):
    sandbox = Sandbox(name)
    sandbox.up(nodes=3)
    (sandbox.shared / "images").write_text("a file where the pool's directory should be")
    with start(name) as demo:
        said = demo.communicate()[0]
    assert demo.returncode == 1
    assert "Traceback" not in said
    assert "demo: " in said
    assert "./dev down" in said


def test_sandbox_fixture_is_what_its_documentation_says(sandbox, eventually):
    assert sandbox.nodes() == ["hv1", "hv2", "hv3"]
    sandbox.power_cut("hv2")
    assert [node.power for node in sandbox.status().nodes] == ["on", "off", "on"]
    sandbox.power_on("hv2")
    sandbox.wait_ready()
    assert len(eventually("the cluster answers", lambda: sandbox.pvc.rows("node", "list"))) == 3
