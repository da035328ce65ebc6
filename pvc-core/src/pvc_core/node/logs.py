"""The daemon's log: one line per event on standard error, as text or JSON; the journal adds time and host."""

import json
import logging
import re
import sys
import time
from typing import Final

_TIME: Final = "%Y-%m-%dT%H:%M:%S"
_FIELD: Final = re.compile(r"""([A-Za-z_][\w-]*)=('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S*)""")

# systemd reads a leading <n> as the line's priority (sd-daemon(3)).
_PRIORITY: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class TextFormatter(logging.Formatter):
    """``2026-01-02T03:04:05.678 info pvc_core.node.lease lease-taken node=hv1 generation=3``."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return one line (more for a traceback)."""
        text = f"{record.levelname.lower()} {record.name} {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if self._journal:
            mark = f"<{_PRIORITY.get(record.levelno, 6)}>"
            return "\n".join(mark + line for line in text.splitlines())
        return f"{_stamp(record)} {text}"


class JsonFormatter(logging.Formatter):
    """One object per event: time, level, logger, event, its ``key=value`` fields, and the whole message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        message = record.getMessage()
        event, _, rest = message.partition(" ")
        fields: dict[str, object] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "event": event,
            "message": message,
        }
        for name, value in _FIELD.findall(rest):
            fields.setdefault(name, value[1:-1] if value[:1] in {"'", '"'} and len(value) > 1 else value)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def configure(level: str, format_: str, *, journal: bool) -> None:
    """Send all logs to standard error.  ``journal``: it is read by systemd, which adds the time itself."""
    target = logging.StreamHandler(sys.stderr)
    target.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter(journal=journal))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(target)
    set_level(level)


def set_level(level: str) -> None:
    """Change what is told; kazoo's own chatter stays one level quieter than ours."""
    wanted = getattr(logging, level.upper())
    logging.getLogger().setLevel(wanted)
    logging.getLogger("kazoo").setLevel(max(wanted, logging.WARNING))


def _stamp(record: logging.LogRecord) -> str:
    return f"{time.strftime(_TIME, time.localtime(record.created))}.{int(record.msecs):03d}"
