"""What a file expects, in words."""

from pvc_core.testkit.scenario.schema import Expectation, Never


def executes(hosts: list[str]) -> str:
    """Return where a guest executes, in words."""
    return f"executes on {', '.join(hosts)}" if hosts else "executes nowhere"


def expected(e: Expectation) -> str:
    """Return what is expected, in words."""
    parts: list[str] = []
    if e.runs_on:
        parts.append(f"runs on {' or '.join(e.runs_on)}")
    if e.starts is not None:
        parts.append(f"was started {e.starts} times")
    if e.per_node is not None:
        parts.append(f"has no more than {e.per_node} on one node")
    if e.state is not None or e.reason:
        parts.append(f"is {e.state or 'so'}" + (f" because of {e.reason!r}" if e.reason else ""))
    if e.stage is not None:
        parts.append(f"is {e.stage}" if e.stage != "none" else "was never lost")
    if e.proof is not None:
        parts.append(f"is proven dead by {e.proof}")
    if e.waits_for:
        parts.append(f"waits for {e.waits_for!r}")
    if e.alive is not None:
        parts.append("has its lease" if e.alive else "has no lease")
    if e.power is not None:
        parts.append("has power" if e.power == "on" else "has no power")
    if e.primary is not None:
        parts.append("is primary" if e.primary else "is not primary")
    if e.scheduling is not None:
        parts.append(f"is put to {e.scheduling}")
    if e.problem:
        parts.append(f"says {e.problem!r}")
    if e.at is not None:
        when = f"at {e.at:g} s"
    elif e.within is not None:
        when = f"within {e.within:g} s" + (f", after {e.after:g} s" if e.after else "")
    else:
        when = f"from {e.from_:g} s" + (f" until {e.until:g} s" if e.until is not None else " on")
    return f"{e.vm or e.node or 'the cluster'} {' and '.join(parts)} {when}"


def forbidden(n: Never) -> str:
    """Return what must not happen, in words."""
    parts: list[str] = []
    if n.runs_on:
        parts.append(f"executes on {' or '.join(n.runs_on)}")
    if n.down:
        parts.append("executes nowhere")
    if n.starts:
        parts.append("is started")
    if n.stage is not None:
        parts.append(f"is {n.stage}")
    if n.proof is not None:
        parts.append(f"is proven dead by {n.proof}")
    if n.power is not None:
        parts.append(f"has power {n.power}")
    if n.primary:
        parts.append("is primary")
    when = (f" after {n.after:g} s" if n.after else "") + (f" until {n.until:g} s" if n.until is not None else "")
    return f"{n.vm or n.node} never {' or '.join(parts)}{when}"
