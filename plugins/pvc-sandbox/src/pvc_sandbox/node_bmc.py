"""The BMC of a simulated node: where it is, who may use it, and what can be wrong with it.

It is in the management network and outside the node: it goes on when the node's power is cut, when the node hangs, and
when its cables are pulled.
"""

import contextlib
import secrets
import shutil
import sys
from pathlib import Path
from typing import Final

import msgspec

from pvc_core.testkit.lan import entered
from pvc_sandbox import links
from pvc_sandbox.bmc import PORT, Bmc, BmcUser
from pvc_sandbox.files import write_atomically
from pvc_sandbox.layout import Layout

USER: Final = "fence"
PRIVILEGE: Final = "operator"
CIPHER_SUITE: Final = 3
"""ipmi_sim has no 17."""
_PASSWORD_BYTES: Final = 8
"""As hexadecimal digits: the 16 characters that every BMC takes."""


def password_file(layout: Layout) -> Path:
    """Return the file with the password of all BMCs of a sandbox; every node sees it."""
    return Path(layout.state) / "bmc-password"


def make_password(layout: Layout) -> None:
    """Write that file, once."""
    path = password_file(layout)
    if not path.exists():
        write_atomically(path, secrets.token_hex(_PASSWORD_BYTES) + "\n", mode=0o600)


class BmcState(msgspec.Struct, frozen=True, kw_only=True):
    """A BMC as it is now."""

    node: str
    address: str
    """In the management network."""
    port: int
    user: str
    password_file: str
    faults: tuple[str, ...] = ()


class NodeBmc:
    """The BMC of node ``number``.  Its faults last until ``mend``, over power cuts of the BMC itself too."""

    def __init__(self, layout: Layout, number: int) -> None:
        self.name = layout.node_name(number)
        self.address = layout.bmc_address(number)
        self.port = PORT
        self._layout = layout
        self._number = number
        self._directory = layout.bmc_run(number)
        self._dead_file = self._directory / "dead"
        self._password_file = self._directory / "other-password"

    @property
    def exists(self) -> bool:
        """Whether it was ever given power."""
        return self._directory.exists()

    def fence_parameters(self) -> dict[str, str]:
        """Return what a fence device of driver ``ipmi`` needs to know."""
        return {
            "address": self.address,
            "port": str(self.port),
            "user": USER,
            "password_file": str(password_file(self._layout)),
            "privilege": PRIVILEGE,
            "cipher_suite": str(CIPHER_SUITE),
        }

    def power_on(self) -> None:
        """Give the BMC itself power: it answers, unless it is broken; one that runs goes on."""
        if not {"dead", "hangs"} & {*self.faults()}:
            self._start()

    def power_cut(self) -> None:
        """Take the BMC's own power away; nobody has its address then."""
        self._bmc().stop()
        links.set_bmc_address(self._layout, self._number, present=False)

    def dead(self) -> None:
        """Let it be broken: there is nothing at its address, whoever gives it power."""
        write_atomically(self._dead_file, "")
        self.power_cut()

    def hang(self) -> None:
        """Let it take requests and answer none."""
        self._bmc().hang()

    def stuck(self) -> None:
        """Let it say yes to every power command and do nothing."""
        self._bmc().set_stuck(stuck=True)

    def slow(self, seconds: float) -> None:
        """Let it carry out every power command so long after it said yes."""
        self._bmc().set_slow(seconds)

    def change_password(self) -> None:
        """Give it another password than the one that the cluster knows."""
        write_atomically(self._password_file, secrets.token_hex(_PASSWORD_BYTES), mode=0o600)
        self.power_on()

    def mend(self) -> None:
        """Take all faults away, and give it power."""
        self._dead_file.unlink(missing_ok=True)
        self._password_file.unlink(missing_ok=True)
        bmc = self._bmc()
        bmc.set_stuck(stuck=False)
        bmc.set_slow(0)
        self._start()

    def faults(self) -> tuple[str, ...]:
        """Return what is wrong with it, in words; empty: it works."""
        found = self._bmc().faults()
        if self._dead_file.exists():
            found = ("dead", *(fault for fault in found if fault != "off"))
        return (*found, "other password") if self._password_file.exists() else found

    def state(self) -> BmcState:
        """Return where it is, and how it is."""
        return BmcState(
            node=self.name,
            address=self.address,
            port=self.port,
            user=USER,
            password_file=str(password_file(self._layout)),
            faults=self.faults(),
        )

    def received(self) -> list[str]:
        """Return all power commands that reached it, such as ``power=0``."""
        return self._bmc().received()

    def log(self) -> Path:
        """Return its log."""
        return self._directory / "log"

    def remove(self) -> None:
        """Take away all of it; one that is not there is success."""
        if self.exists:
            self.power_cut()
            shutil.rmtree(self._directory, ignore_errors=True)
            with contextlib.suppress(OSError):  # others are still there
                self._directory.parent.rmdir()

    def _start(self) -> None:
        links.set_bmc_address(self._layout, self._number, present=True)
        with entered(self._layout.switch):
            self._bmc().start()

    def _bmc(self) -> Bmc:
        button = (sys.executable, "-m", "pvc_sandbox.power", self._layout.state, self.name)
        users = [BmcUser(USER, self._password(), PRIVILEGE)]
        return Bmc(self.name, self._directory, self.address, self.port, button, users)

    def _password(self) -> str:
        if self._password_file.exists():
            return self._password_file.read_text()
        make_password(self._layout)
        return password_file(self._layout).read_text().strip()
