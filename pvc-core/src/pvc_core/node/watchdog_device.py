"""Watchdogs: the kernel's character device, and a program behind a socket that stands in for one.

Opening one starts its countdown, so it is opened only by a node that has its lease.  No call waits for a stand-in for
longer than ``ANSWER_S`` seconds; a call of the kernel takes as long as the driver does.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final, Protocol

from pvc_core.model.errors import PvcError

ANSWER_S: Final = 1.0
"""Time that a stand-in has to take a connection, and to answer."""


_LONGEST_ANSWER: Final = 256


class WatchdogError(PvcError):
    """The watchdog cannot be used, or does not do what it was asked."""


class WatchdogDevice(Protocol):
    """A watchdog that counts down.  If this process ends without ``disarm``, it goes on."""

    @property
    def timeout_s(self) -> float:
        """It resets the node so long after it was last fed; what the device itself said."""

    @property
    def about(self) -> str:
        """What it is, and what an operator should know of it; one sentence, or part of one."""

    def feed(self) -> None:
        """Start the countdown anew.  Raises WatchdogError."""

    def disarm(self) -> None:
        """Stop the countdown for good and close.  Raises WatchdogError when it may go on."""


def open_device(path: str, timeout_s: float) -> WatchdogDevice:
    """Open the watchdog at ``path``, set its time-out and feed it: from now on it counts.

    Raises WatchdogError, with the watchdog as it was if that can be.
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        advice = "; is the watchdog's kernel module loaded?" if path.startswith("/dev/") else ""
        raise WatchdogError(f"{path}: {error.strerror}{advice}") from error
    if stat.S_ISCHR(mode):
        return CharDevice(path, timeout_s)
    if stat.S_ISSOCK(mode):
        return SocketDevice(path, timeout_s)
    raise WatchdogError(f"{path} is neither a watchdog device nor a socket")


# linux/watchdog.h, numbered as in asm-generic/ioctl.h: all of Debian's architectures but mips, powerpc and sparc.
_READ, _WRITE = 2, 1
_INFO: Final = struct.Struct("=II32s")
_INT: Final = struct.Struct("=i")


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("W") << 8 | number


WDIOC_GETSUPPORT: Final = _ioc(_READ, 0, _INFO.size)
WDIOC_SETOPTIONS: Final = _ioc(_READ, 4, _INT.size)
WDIOC_SETTIMEOUT: Final = _ioc(_READ | _WRITE, 6, _INT.size)
WDIOC_GETTIMEOUT: Final = _ioc(_READ, 7, _INT.size)
WDIOF_MAGICCLOSE: Final = 0x0100
WDIOS_DISABLECARD: Final = 0x0001
_STOP_AT_CLOSE: Final = b"V"
_FOOD: Final = b"\0"
"""Written, because WDIOC_KEEPALIVE would not take back the mark of an earlier ``_STOP_AT_CLOSE``, which Linux 6.1 keeps
when the watchdog had been stopped by other means: our death would then stop it."""
_MISC: Final = 10
"""Major number of /dev/watchdog; those with a number in their name have another."""


class CharDevice:
    """A watchdog of the kernel (Documentation/watchdog/watchdog-api.rst)."""

    def __init__(self, path: str, timeout_s: float) -> None:
        """Open and arm it; whole seconds only.  Raises WatchdogError."""
        self._path = path
        self._identity = ""
        self._nowayout = False
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            advice = "; another program has it open" if error.errno == errno.EBUSY else ""
            raise WatchdogError(f"{path} cannot be opened: {error.strerror}{advice}") from error
        try:
            self._arm(int(timeout_s))
        except (OSError, WatchdogError) as error:
            with contextlib.suppress(WatchdogError):
                self.disarm()
            raise WatchdogError(f"{path}: {getattr(error, 'strerror', error)}") from error

    @property
    def timeout_s(self) -> float:
        """The time-out that the driver uses, which may not be the one asked for."""
        return self._timeout_s

    @property
    def about(self) -> str:
        """Its driver's name, and what stopping it takes."""
        about = f"{self._path} ({self._identity})"
        if "software" in self._identity.lower():
            about += ", which is software: a kernel that hangs may never be reset"
        if self._nowayout:
            about += ", which cannot be disarmed (nowayout): stopping pvcnoded resets the node"
        return about

    def feed(self) -> None:
        """Start the countdown anew."""
        try:
            os.write(self._file, _FOOD)
        except OSError as error:
            raise WatchdogError(f"{self._path} cannot be fed: {error.strerror}") from error

    def disarm(self) -> None:
        """Stop the countdown and close."""
        try:
            fcntl.ioctl(self._file, WDIOC_SETOPTIONS, _INT.pack(WDIOS_DISABLECARD))
        except OSError as error:
            if self._nowayout or error.errno == errno.EBUSY:
                raise WatchdogError(f"{self._path} cannot be disarmed: nowayout is set") from error
            # Only where it is needed: after a stop Linux keeps the mark that this makes, for whoever opens it next.
            try:
                os.write(self._file, _STOP_AT_CLOSE)
            except OSError as gone:
                raise WatchdogError(f"{self._path} cannot be disarmed: {gone.strerror}") from gone
        finally:
            os.close(self._file)

    def _arm(self, timeout_s: int) -> None:
        options, _, identity = _INFO.unpack(fcntl.ioctl(self._file, WDIOC_GETSUPPORT, bytes(_INFO.size)))
        self._identity = identity.partition(b"\0")[0].decode("ascii", "replace")
        self._nowayout = _nowayout(self._file, self._identity)
        if not options & WDIOF_MAGICCLOSE and not self._nowayout:
            raise WatchdogError(
                f"{self._identity} stops counting when its process dies (no WDIOF_MAGICCLOSE): "
                "load the driver's module with nowayout=1"
            )
        with contextlib.suppress(OSError):  # one whose time-out is fixed
            fcntl.ioctl(self._file, WDIOC_SETTIMEOUT, _INT.pack(timeout_s))
        (effective,) = _INT.unpack(fcntl.ioctl(self._file, WDIOC_GETTIMEOUT, _INT.pack(0)))
        if effective < 1:
            raise WatchdogError(f"{self._identity} does not say its time-out")
        self._timeout_s = float(effective)
        self.feed()


def _nowayout(file: int, identity: str) -> bool:
    """Return whether the kernel says that this watchdog cannot be stopped."""
    number = os.fstat(file).st_rdev
    shown = Path(f"/sys/dev/char/{os.major(number)}:{os.minor(number)}")
    if os.major(number) == _MISC:
        # The old name, /dev/watchdog, is of the first one.
        shown = Path("/sys/class/watchdog/watchdog0")
    with contextlib.suppress(OSError):
        return (shown / "nowayout").read_text("ascii").strip() == "1" and (shown / "identity").read_text(
            "ascii"
        ).strip() == identity.strip()
    return False


class SocketDevice:
    """A program that stands in for a watchdog, behind a Unix stream socket.

    We send ``timeout SECONDS``, which starts the countdown anew and is answered with the time-out that it uses, in the
    same words; ``feed``, which starts it anew and is not answered; and ``disarm``, which is answered ``disarmed``.  Each
    is a line.  The end of a connection changes nothing; the next one goes on.
    """

    def __init__(self, path: str, timeout_s: float) -> None:
        """Connect and arm it.  Raises WatchdogError."""
        self._path = path
        self._link = self._connect()
        try:
            self._timeout_s = self._set_timeout(timeout_s)
        except WatchdogError:
            self._link.close()
            raise

    @property
    def timeout_s(self) -> float:
        """The time-out that the program uses."""
        return self._timeout_s

    @property
    def about(self) -> str:
        """Where it is."""
        return f"the program behind {self._path}"

    def feed(self) -> None:
        """Start the countdown anew, over a new connection if the one before is gone."""
        try:
            self._link.sendall(b"feed\n")
        except OSError:
            self._link.close()
            self._link = self._connect()
            # If it is another program than before, that one must be armed too.
            timeout_s = self._set_timeout(self._timeout_s)
            if timeout_s > self._timeout_s:
                raise WatchdogError(
                    f"{self._path} has a time-out of {timeout_s:g} s now, instead of {self._timeout_s:g} s"
                ) from None

    def disarm(self) -> None:
        """Stop the countdown and close."""
        try:
            self._ask("disarm", "disarmed")
        finally:
            self._link.close()

    def _connect(self) -> socket.socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(ANSWER_S)
        try:
            link.connect(self._path)
        except OSError as error:
            link.close()
            raise WatchdogError(f"{self._path} takes no connection: {error.strerror or error}") from error
        return link

    def _set_timeout(self, timeout_s: float) -> float:
        answer = self._ask(f"timeout {timeout_s:g}", "timeout")
        try:
            effective = float(answer)
        except ValueError:
            effective = 0.0
        if not 0.0 < effective < float("inf"):
            raise WatchdogError(f"{self._path} answered a time-out of {answer!r}")
        return effective

    def _ask(self, line: str, expected: str) -> str:
        """Send a line and return what follows the expected word in the answer."""
        answer = b""
        try:
            self._link.sendall(line.encode() + b"\n")
            while not answer.endswith(b"\n"):
                more = self._link.recv(_LONGEST_ANSWER)
                answer += more
                if not more or len(answer) > _LONGEST_ANSWER:
                    raise WatchdogError(f"{self._path} did not answer {line!r} with a line")
        except OSError as error:
            raise WatchdogError(f"{self._path} did not answer {line!r}: {error.strerror or error}") from error
        text = answer.decode("utf-8", "replace").strip()
        word, _, rest = text.partition(" ")
        if word != expected:
            raise WatchdogError(f"{self._path} answered {line!r} with {text!r}")
        return rest
