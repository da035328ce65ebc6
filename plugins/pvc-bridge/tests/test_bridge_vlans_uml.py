"""VLANs of driver ``bridge``, in a kernel that has them: a user-mode Linux, for this machine's may not."""

import re
import sys
from pathlib import Path

import pytest

from pvc_sandbox.uml import run_in_uml

TESTS = Path(__file__).with_name("vlans_in_uml.py")
BOUND_S = 600.0
AT_LEAST = 65
"""As many tests are there to be passed."""

pytestmark = [pytest.mark.real, pytest.mark.timeout(BOUND_S + 60)]


def test_vlans_pass_all_their_tests_in_a_kernel_that_has_them():
    done = run_in_uml(
        [
            *(sys.executable, "-m", "pytest", str(TESTS)),
            *("-q", "-p", "no:cacheprovider", "-o", f"pythonpath={TESTS.parent}"),
        ],
        deadline_s=BOUND_S,
        modules=["ipv6", "8021q", "bridge", "veth", "br_netfilter"],
    )
    assert done.returncode == 0, f"{done.stdout[-20000:]}{done.stderr[-4000:]}"
    last = done.stdout.strip().splitlines()[-1]
    found = re.match(r"(\d+) passed in ", last)
    assert found, f"not all were passed: {last}"
    assert int(found[1]) >= AT_LEAST
