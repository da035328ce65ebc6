"""Bonds and VLANs below a node's networks, in a kernel that has them: a user-mode Linux, for this machine's may not.

It is Debian 12's kernel, on which nodes run: so marks of addresses are tried there too.
"""

import re
import sys
from pathlib import Path

import pytest

from pvc_sandbox.uml import run_in_uml

TESTS = Path(__file__).with_name("stacked_in_uml.py")
BOUND_S = 300.0
AT_LEAST = 4
"""As many tests are there to be passed."""

pytestmark = [pytest.mark.real, pytest.mark.timeout(BOUND_S + 60)]


def test_networks_on_bonds_and_vlans_pass_all_their_tests():
    done = run_in_uml(
        [sys.executable, "-m", "pytest", str(TESTS), "-q", "-p", "no:cacheprovider"],
        deadline_s=BOUND_S,
        modules=["ipv6", "8021q", "bonding", "bridge", "veth"],
    )
    assert done.returncode == 0, f"{done.stdout[-20000:]}{done.stderr[-4000:]}"
    last = done.stdout.strip().splitlines()[-1]
    found = re.match(r"(\d+) passed in ", last)
    assert found, f"not all were passed: {last}"
    assert int(found[1]) >= AT_LEAST
