"""Where a guest counted, as its consoles on all nodes tell it."""

import pytest

from pvc_sandbox.counted import Counted, counted
from pvc_sandbox.errors import SandboxError


class Consoles:
    """A sandbox as far as consoles go: node -> what VM ``vm`` wrote there."""

    def __init__(self, directory, **texts):
        self._files = {}
        for node, text in texts.items():
            self._files[node] = directory / node
            self._files[node].write_text(text)

    def nodes(self):
        return sorted({*self._files, "hv9"})

    def logs(self, node):
        return {"console/vm": self._files[node]} if node in self._files else {}


def test_numbers_are_told_in_runs_in_their_order_whatever_node_they_are_from(tmp_path):
    consoles = Consoles(
        tmp_path,
        hv1="GUEST-UP 2.1\r\n~ # tick 1 2.30\r\ntick 2 3.40\r\ntick 5 6.70\r\n",
        hv2="tick 3 4.50\ntick 4 5.60\ntick 7 0.9",
    )
    assert counted(consoles, "vm") == [
        Counted("hv1", 1, 2), Counted("hv2", 3, 4), Counted("hv1", 5, 5), Counted("hv2", 7, 7),
    ]  # fmt: skip


def test_number_that_two_nodes_tell_is_an_error(tmp_path):
    consoles = Consoles(tmp_path, hv1="tick 1 2.30\ntick 2 3.40\n", hv2="tick 2 0.90\n")
    with pytest.raises(SandboxError, match="ran twice: it counted 2 on hv1 and on hv2"):
        counted(consoles, "vm")
