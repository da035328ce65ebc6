"""VLAN devices and ports that filter, in a kernel that has them: a user-mode Linux, for this machine's may not."""

import re
import sys
from pathlib import Path

import pytest

from pvc_sandbox.uml import run_in_uml

TESTS = Path(__file__).with_name("test_netdev_links.py")
BOUND_S = 120.0

pytestmark = [pytest.mark.real, pytest.mark.timeout(BOUND_S + 60)]


def test_links_pass_their_tests_in_a_kernel_with_vlans():
    done = run_in_uml(
        [sys.executable, "-m", "pytest", str(TESTS), "-q", "-p", "no:cacheprovider"],
        deadline_s=BOUND_S,
        modules=["ipv6", "8021q", "bridge", "veth", "vxlan"],
    )
    assert done.returncode == 0, f"{done.stdout[-20000:]}{done.stderr[-4000:]}"
    last = done.stdout.strip().splitlines()[-1]
    found = re.match(r"(\d+) passed in ", last)
    assert found, f"not all were passed: {last}"
    assert int(found[1]) >= 30
