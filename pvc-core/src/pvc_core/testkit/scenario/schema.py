"""The format of a scenario file.  The descriptions are what docs/scenarios.md prints."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from pvc_core.config.schema import Timing
from pvc_core.model.fence import FenceStage, Means, ProofKind
from pvc_core.model.node import Role, Scheduling
from pvc_core.model.vm import MigrationMethod, RestartPolicy, VmState

Moment = Annotated[float, Meta(ge=0)]
Stage = Literal["none", "suspected", "fencing", "proven", "recovered", "cancelled", "returned"]
Count = Annotated[int, Meta(ge=1, le=500)]


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping of the file."""


class NodeEntry(Section, frozen=True, kw_only=True):
    """A node, or several."""

    count: Annotated[Count | None, Meta(description="So many nodes, named with a number each: n1, n2, ...")] = None
    role: Annotated[Role, Meta(description="Coordinators (1, 3 or 5) run the state store and fence.")] = "hypervisor"
    memory: Annotated[int | str, Meta(description="Memory of the host: MiB, or a size; 1 GiB of it is its own.")] = (
        "64G"
    )
    levels: Annotated[
        tuple[Annotated[tuple[str, ...], Meta(min_length=1)], ...],
        Meta(description="Fence levels: devices of each, which are `bmc`, `pdu-a`, `pdu-b`. Empty: no level at all."),
    ] = (("bmc",),)
    bmc_own_power: Annotated[bool, Meta(description="The BMC answers also when the node's mains are cut.")] = True
    watchdog: Annotated[
        Annotated[float, Meta(ge=2, le=600)] | None,
        Meta(description="Time-out of its watchdog in seconds; nothing: none."),
    ] = None
    clock_rate: Annotated[
        Annotated[float, Meta(ge=0.9, le=1.1)], Meta(description="Seconds of its clock per true second.")
    ] = 1.0


class VmEntry(Section, frozen=True, kw_only=True):
    """A VM, or several."""

    count: Annotated[Count | None, Meta(description="So many VMs, named with a number each: web1, web2, ...")] = None
    node: Annotated[str | None, Meta(description="Where it runs at the beginning; nothing: one is chosen.")] = None
    node_limit: Annotated[tuple[str, ...], Meta(description="It runs on these nodes only; empty: on all.")] = ()
    memory: Annotated[int | str, Meta(description="Memory: MiB, or a size.")] = "1G"
    power: Annotated[Literal["running", "stopped"], Meta(description="Its power at the beginning.")] = "running"
    restart: Annotated[RestartPolicy, Meta(description="Restart policy.")] = "always"
    priority: Annotated[
        Annotated[int, Meta(ge=-1000, le=1000)], Meta(description="Higher ones get their place first.")
    ] = 0
    migration: Annotated[MigrationMethod, Meta(description="How it is moved.")] = "live-or-shutdown"
    disk: Annotated[bool, Meta(description="It has a disk, on shared storage that can be closed to a node.")] = False


class Settings(Section, frozen=True, kw_only=True):
    """Settings of the cluster."""

    recovery: Annotated[
        tuple[Means, ...], Meta(description="Which proofs of a node's death suffice besides an operator's word.")
    ] = ("power", "storage", "watchdog")
    power_on_after_fence: Annotated[bool, Meta(description="Switch a fenced node on again.")] = False
    return_after_fence: Annotated[bool, Meta(description="Put a fenced node back into service when it is back.")] = (
        False
    )
    migrations_per_source: Annotated[
        Annotated[int, Meta(ge=1, le=64)], Meta(description="Live migrations at a time from one node.")
    ] = 2
    migrations_per_target: Annotated[
        Annotated[int, Meta(ge=1, le=64)], Meta(description="Live migrations at a time to one node.")
    ] = 2


class Command(Section, frozen=True, kw_only=True):
    """Something that happens."""

    at: Annotated[Moment | None, Meta(description="When, in seconds from the beginning.")] = None
    when: Annotated[
        str,
        Meta(
            description="Instead of `at`: the very moment in which this is first written, `n2 fencing` (a node and a stage "
            "of its fencing) or `web transfer` (a VM and a phase of its live migration)."
        ),
    ] = ""
    delay: Annotated[Moment, Meta(description="So many seconds after `when`.")] = 0.0
    do: Annotated[str, Meta(min_length=1, description="One of the commands below.")]
    refused: Annotated[
        str, Meta(description="An operator's request must be refused, with an error that contains this.")
    ] = ""


class Expectation(Section, frozen=True, kw_only=True):
    """Something that must come true.  One of ``vm``, ``node``, ``cluster`` is its subject."""

    at: Annotated[Moment | None, Meta(description="It is true at this moment.")] = None
    within: Annotated[Moment | None, Meta(description="It is true once, by this moment.")] = None
    after: Annotated[
        Moment | None, Meta(description="With `within`: not before this moment; nothing: the first command's.")
    ] = None
    from_: Annotated[Moment | None, Meta(description="It is true all the time from this moment on.")] = field(
        default=None, name="from"
    )
    until: Annotated[Moment | None, Meta(description="With `from`: until before this moment; nothing: to the end.")] = (
        None
    )

    vm: Annotated[str, Meta(description="A VM; or the name of several, and it is true of each of them.")] = ""
    runs_on: Annotated[tuple[str, ...], Meta(description="Its guest really executes, on one of these nodes.")] = ()
    state: Annotated[VmState | None, Meta(description="Its state, as `pvc vm list` shows it.")] = None
    reason: Annotated[str, Meta(description="The sentence on why it is in that state contains this.")] = ""
    starts: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="Its guest was started so many times since the beginning.")
    ] = None
    per_node: Annotated[Count | None, Meta(description="No node executes more than so many of these VMs.")] = None

    node: Annotated[str, Meta(description="A node.")] = ""
    stage: Annotated[Stage | None, Meta(description="Stage of its last fencing; `none`: there was never one.")] = None
    proof: Annotated[ProofKind | None, Meta(description="There is this proof of its death.")] = None
    waits_for: Annotated[str, Meta(description="The reason why there is no proof yet contains this.")] = ""
    alive: Annotated[bool | None, Meta(description="It has its lease.")] = None
    power: Annotated[Literal["on", "off"] | None, Meta(description="Its host really has power, or none.")] = None
    primary: Annotated[bool | None, Meta(description="It has the primary role.")] = None
    scheduling: Annotated[Scheduling | None, Meta(description="It is in service (`ready`) or is not (`drain`).")] = None

    problem: Annotated[
        str, Meta(description="Without vm and node: `pvc cluster status` shows a problem that contains this.")
    ] = ""


class Never(Section, frozen=True, kw_only=True):
    """Something that must not happen at any moment."""

    after: Annotated[Moment, Meta(description="From this moment on.")] = 0.0
    until: Annotated[Moment | None, Meta(description="Before this moment; nothing: to the end.")] = None
    vm: Annotated[str, Meta(description="A VM, or the name of several.")] = ""
    runs_on: Annotated[tuple[str, ...], Meta(description="Its guest executes on one of these nodes.")] = ()
    down: Annotated[bool, Meta(description="Its guest executes nowhere.")] = False
    starts: Annotated[bool, Meta(description="Its guest is started.")] = False
    node: Annotated[str, Meta(description="A node.")] = ""
    stage: Annotated[FenceStage | None, Meta(description="Its fencing enters this stage.")] = None
    proof: Annotated[ProofKind | None, Meta(description="This proof of its death is recorded.")] = None
    power: Annotated[Literal["on", "off"] | None, Meta(description="Its host has power, or has none.")] = None
    primary: Annotated[bool, Meta(description="It has the primary role.")] = False


class Scenario(Section, frozen=True, kw_only=True):
    """The whole file."""

    description: Annotated[str, Meta(min_length=1, description="What it is about, one sentence.")]
    nodes: Annotated[dict[str, NodeEntry], Meta(description="Name -> node.")]
    vms: Annotated[dict[str, VmEntry], Meta(description="Name -> VM.")] = {}
    settings: Annotated[Settings, Meta(description="Settings of the cluster.")] = Settings()
    timing: Annotated[Timing, Meta(description="As in pvcnoded.yml; the same on all nodes.")] = Timing()
    commands: Annotated[tuple[Command, ...], Meta(description="What happens.")] = ()
    expect: Annotated[tuple[Expectation, ...], Meta(description="What must come of it.")] = ()
    events: Annotated[
        tuple[str, ...],
        Meta(description="Texts that lines of the timeline contain, in this order; others may stand between."),
    ] = ()
    never: Annotated[tuple[Never, ...], Meta(description="What must not happen.")] = ()
    operator_lies: Annotated[
        tuple[str, ...],
        Meta(
            description="Nodes whose death an operator confirms while they live: a guest of theirs may then execute twice "
            "until they have cleaned up."
        ),
    ] = ()
    until: Annotated[
        Moment | None, Meta(description="When it ends; nothing: 5 s after the last moment that is named.")
    ] = None
