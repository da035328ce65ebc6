"""What an agent's end means: its exit status, the state it printed, or why it failed.

Exit statuses are those of ClusterLabs' FenceAgentAPI: for ``status`` 0 is on, 2 is off.  A shell or an interpreter
also ends with 2 when it is misused, so "off" is believed only when the agent has said it in words, too.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

from pvc_core.plugin import AuthFailed, Completed, DeadlineExceeded, DriverError, NotReady, PowerState

Mask = Callable[[str], str]

_STATES: Final = {0: PowerState.ON, 2: PowerState.OFF}
_SAID: Final = re.compile(r"^status:\s*(\S+)\s*$", re.IGNORECASE | re.MULTILINE)
_STAMP: Final = re.compile(r"^(\d{4}-\d\d-\d\d [\d:,]+ )?(ERROR|WARNING|CRITICAL)(:root)?:\s*(Failed:\s+)?")
_WARNING: Final = re.compile(r"^\S+:\d+: \w*Warning: ")
_ADDRESS: Final = re.compile(r" object at 0x[0-9a-f]+")
"""Another one each time, so that the same failure would look new."""
_NOISE: Final = ("Please use '-h' for usage",)
_LINES: Final = 3
_LENGTH: Final = 300

# fencing.py has one message for "unable to connect or log in", so that one says nothing about the password.
_DENIED: Final = re.compile(
    r"unauthori[sz]ed|\b40[13]\b|authentication (fail|error)|authorization|incorrect (password|user)|invalid (user|cred|pass)"
    r"|(login|access|permission) denied|login failed|wrong password|correct privileges|insufficient priv",
    re.IGNORECASE,
)
_UNREACHABLE: Final = re.compile(
    r"timed? ?out|unable to connect|(could not|cannot|can't) connect|connection (refused|lost|reset|aborted|closed|error)"
    r"|no route|unreachable|failed to establish|not known|resolve|max retries",
    re.IGNORECASE,
)
_GAVE_UP: Final = re.compile(r"timed out waiting to power", re.IGNORECASE)


def mask(secrets: Iterable[str]) -> Mask:
    """Return a function that replaces every secret in a text, also in the ways in which programs quote them."""
    forms = {form for secret in secrets for form in _forms(secret)}
    if not forms:
        return lambda text: text
    pattern = re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))
    return lambda text: pattern.sub("***", text)


def state(agent: str, done: Completed, masked: Mask) -> PowerState:
    """Return the power that an agent read; raises what ``failure`` returns, or DriverError for nonsense."""
    meant = _STATES.get(done.returncode)
    if meant is None:
        raise failure(agent, done, masked)
    said = {word.lower() for word in _SAID.findall(done.stdout)}
    if said != {meant.value}:
        raise DriverError(
            f"{agent} ended with status {done.returncode}, which means {meant.value}, but did not say so: "
            f"{explanation(done, masked)}"
        )
    return meant


def failure(agent: str, done: Completed, masked: Mask) -> DriverError:
    """Return why an agent failed.

    AuthFailed, NotReady (not reached), or DeadlineExceeded (it commanded the power, and gave up waiting) when its
    words show that, else DriverError.
    """
    why = explanation(done, masked)
    kinds = ((_GAVE_UP, DeadlineExceeded), (_DENIED, AuthFailed), (_UNREACHABLE, NotReady))
    kind = next((kind for pattern, kind in kinds if pattern.search(why)), DriverError)
    return kind(f"{agent} failed: {why}")


def explanation(done: Completed, masked: Mask) -> str:
    """Return the last lines that an agent wrote, shortened and without secrets."""
    for text in (done.stderr, done.stdout):
        lines = list(_worth_telling(masked(text)))[-_LINES:]
        if lines:
            told = " / ".join(lines)
            return told if len(told) <= _LENGTH else f"{told[: _LENGTH - 3]}..."
    return f"it ended with status {done.returncode} and said nothing"


def _worth_telling(text: str) -> Iterator[str]:
    lines = text.splitlines()
    if "Traceback (most recent call last):" in lines:
        lines = [line for line in lines if not line.startswith((" ", "Traceback "))]
    after_warning = False
    for line in lines:
        quoted_source = after_warning and line.startswith(" ")
        after_warning = bool(_WARNING.match(line))
        words = _ADDRESS.sub("", _STAMP.sub("", line)).strip()
        if words and words not in _NOISE and not after_warning and not quoted_source:
            yield "".join(letter if letter.isprintable() else "?" for letter in words)


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield shlex.quote(secret)
    yield secret.replace("'", "'\\''")  # as fencing.py quotes for the shell
    yield escape(secret)
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
