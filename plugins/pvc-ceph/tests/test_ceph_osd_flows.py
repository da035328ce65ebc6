"""Adding, removing, replacing and refreshing OSDs, on disks and a cluster in memory; the daemon dies between any two effects."""

import contextlib
import itertools
import logging
from dataclasses import dataclass, field

import msgspec
import pytest

from pvc_ceph.osd import cluster
from pvc_ceph.osd.add import add
from pvc_ceph.osd.check import AddRequest
from pvc_ceph.osd.refresh import RefreshRequest, refresh
from pvc_ceph.osd.retire import RemoveRequest, ReplaceRequest, remove, replace
from pvc_ceph.osd.site import Course, Site
from pvc_ceph.osd.unfinished import Unfinished
from pvc_ceph.osd.values import DESTROYED, NEW, Block, Found, OsdList, OsdRow, Safety
from pvc_core.model.errors import InvalidRequest
from pvc_core.plugin import Cancelled, DriverError, NotReady, ObjectBusy, ObjectMissing
from pvc_core.testkit.doomed import Died, Doom

GIB = 1 << 30
OURS, OTHERS = "cluster-a", "cluster-b"


@dataclass
class Osd:
    fsid: str
    node: str
    state: str = NEW
    up: bool = False
    inside: bool = True
    pgs: int = 0
    device_class: str = "hdd"
    weight: float = 0.0


@dataclass
class Label:
    """What is on a disk of an OSD."""

    id: int
    fsid: str
    cluster: str = OURS
    whole: bool = True


@dataclass
class World:
    """What outlives a daemon: the disks of node hv1, the daemons of its OSDs, and the monitors' map."""

    osds: dict = field(default_factory=dict)
    disks: dict = field(default_factory=lambda: dict.fromkeys(["/dev/a", "/dev/b", "/dev/c"]))
    running: set = field(default_factory=set)
    enabled: set = field(default_factory=set)
    flags: tuple = ()
    doom: Doom = field(default_factory=Doom)
    dead: bool = False
    violations: list = field(default_factory=list)
    comes_up: bool = True
    drains: bool = True

    def moment(self):
        if self.dead:
            raise Died
        try:
            self.doom.moment()
        except Died:
            self.dead = True
            raise

    @contextlib.contextmanager
    def effect(self):
        self.moment()
        yield
        self.moment()

    def pause(self, _seconds):
        """Time passes: data leaves OSDs that are out."""
        self.moment()
        for osd in self.osds.values():
            if not osd.inside and self.drains:
                osd.pgs = max(0, osd.pgs - 4)

    def labels(self):
        """Yield disk and label of all OSDs on disks."""
        for disk, content in self.disks.items():
            for label in content if isinstance(content, list) else [content]:
                if isinstance(label, Label):
                    yield disk, label

    def label(self, fsid):
        return next((label for _, label in self.labels() if label.fsid == fsid), None)


class Monitors:
    def __init__(self, world):
        self._world = world

    def osds(self):
        rows = tuple(
            OsdRow(
                id=id_,
                fsid="" if osd.state == DESTROYED else osd.fsid,
                node=osd.node,
                device_class=osd.device_class,
                size_bytes=4 * GIB if osd.up and osd.inside else 0,
                disk_bytes=4 * GIB,
                up=osd.up,
                inside=osd.inside,
                pgs=osd.pgs,
                state=osd.state,
                weight=osd.weight,
            )
            for id_, osd in sorted(self._world.osds.items())
        )
        return OsdList(fsid=OURS, osds=rows, flags=self._world.flags, copies=2)

    def create(self, fsid, key, device_class, id_):
        del key
        with self._world.effect():
            known = next((known for known, osd in self._world.osds.items() if osd.fsid == fsid), None)
            if known is not None:
                return known
            if id_ is None:
                id_ = next(number for number in itertools.count() if number not in self._world.osds)
                self._world.osds[id_] = Osd(fsid, node="", device_class=device_class)
            else:
                assert self._world.osds[id_].state == DESTROYED
                # As Ceph has it: what was put out stays so.
                self._world.osds[id_].fsid, self._world.osds[id_].state = fsid, NEW
            return id_

    def place(self, id_, weight, host):
        with self._world.effect():
            self._world.osds[id_].weight, self._world.osds[id_].node = weight, host

    def reweight(self, id_, weight):
        with self._world.effect():
            self._world.osds[id_].weight = weight

    def take_in(self, ids):
        with self._world.effect():
            for id_ in ids:
                self._world.osds[id_].inside = True

    def put_out(self, ids):
        with self._world.effect():
            for id_ in ids:
                self._world.osds[id_].inside = False

    def safety(self, id_):
        pgs = self._world.osds[id_].pgs
        return Safety(safe=not pgs, pgs=pgs, why="busy" if pgs else "")

    def why_not_stop(self, id_):
        return "it serves" if self._world.osds[id_].pgs else ""

    def mark_down(self, id_):
        with self._world.effect():
            if id_ not in self._world.running:
                self._world.osds[id_].up = False

    def destroy(self, id_, *, force):
        with self._world.effect():
            osd = self._world.osds[id_]
            if osd.up:
                raise ObjectBusy("is not down")
            if osd.pgs and not force:
                raise ObjectBusy("would lose data")
            osd.state, osd.fsid, osd.pgs = DESTROYED, "", 0

    def purge(self, id_, *, force):
        with self._world.effect():
            osd = self._world.osds.get(id_)
            if osd is not None and (osd.up or (osd.pgs and not force)):
                raise ObjectBusy("is up, or would lose data")
            self._world.osds.pop(id_, None)

    def purge_new(self, id_):
        with self._world.effect():
            if id_ in self._world.osds:
                if self._world.osds[id_].state != NEW:
                    raise ObjectBusy("is not new")
                del self._world.osds[id_]

    def key(self, id_):
        return f"key-{id_}"

    def bootstrap_key(self):
        return "key"

    def flag(self, name, wanted, ids):
        del ids
        self._world.flags = (name,) if wanted else ()


class Layout:
    def __init__(self, world, monitors):
        self._world = world
        self._monitors = monitors

    def objection(self, stores):
        return "one only" if any(store.parts > 2 for store in stores) else ""

    def db_for(self, wanted, size_bytes, count, freed):
        del size_bytes, count, freed
        return wanted or "group"

    def found(self):
        return [
            Found(id=label.id, fsid=label.fsid, cluster=label.cluster, device=disk, data=disk)
            for disk, label in self._world.labels()
            if label.whole
        ]

    def make(self, new):
        id_ = self._monitors.create(new.store.fsid, "key", new.device_class, new.id)
        label = Label(id_, new.store.fsid, whole=False)
        with self._world.effect():
            before = self._world.disks[new.store.device]
            self._world.disks[new.store.device] = label if before is None else [before, label]
        with self._world.effect():
            label.whole = True
        return id_

    def activate(self, osd):
        with self._world.effect():
            self._world.enabled.add(osd.id)
        with self._world.effect():
            self._world.running.add(osd.id)
            known = self._world.osds.get(osd.id)
            if known is None or known.fsid != osd.fsid:
                self._world.violations.append(f"OSD {osd.id} of {osd.fsid} runs and is not known")
            elif self._world.comes_up:
                known.up, known.state, known.node = True, "", "hv1"

    def deactivate(self, id_, fsid):
        del fsid
        with self._world.effect():
            self._world.enabled.discard(id_)
        with self._world.effect():
            if id_ in self._world.osds and self._world.osds[id_].pgs and not self._world.forced:
                self._world.violations.append(f"OSD {id_} was stopped while it had data")
            self._world.running.discard(id_)

    def wipe(self, stores):
        for store in stores:
            for disk, label in list(self._world.labels()):
                if label.fsid == store.fsid:
                    known = next((osd for osd in self._world.osds.values() if osd.fsid == store.fsid), None)
                    if known is not None and known.state == "":
                        self._world.violations.append(f"{disk} was wiped while its OSD could come back")
                    with self._world.effect():
                        others = [each for on, each in self._world.labels() if on == disk and each is not label]
                        self._world.disks[disk] = others[0] if others else None

    def make_db_group(self, device):
        with self._world.effect():
            self._world.disks[device] = "LVM2_member"
        return "group"


class Disks:
    def __init__(self, world):
        self._world = world

    def all(self):
        return [self.one(path) for path in self._world.disks]

    def one(self, device):
        if device not in self._world.disks:
            raise DriverError(f"there is no device {device} on this node", retryable=False)
        return Block(path=device, type="disk", size_bytes=4 * GIB, rotational=True)

    def signatures(self, block):
        content = self._world.disks[block.path]
        return () if content is None else (content,) if isinstance(content, str) else ("ceph_bluestore",)

    def is_busy(self, block):
        return any(disk == block.path and label.id in self._world.running for disk, label in self._world.labels())


class DoomedUnfinished(Unfinished):
    def __init__(self, directory, world):
        super().__init__(directory)
        self._world = world

    def begin(self, addition):
        with self._world.effect():
            super().begin(addition)

    def end(self):
        with self._world.effect():
            super().end()


class Telling:
    """What a flow tells of its course; told to stop from a part on."""

    def __init__(self, stop_at):
        self.parts = []
        self.said = []
        self._stop_at = stop_at

    def __call__(self, part):
        assert 0.0 <= part <= 1.0
        self.parts.append(part)
        return self._stop_at is not None and part >= self._stop_at

    def say(self, message):
        self.said.append(message)


class Node:
    """Node hv1, whose daemon dies and is started again."""

    def __init__(self, directory):
        self.world = World()
        self.world.forced = False
        self._directory = directory
        self.start()

    def start(self):
        self.world.dead = False
        ticks = itertools.count()
        monitors = Monitors(self.world)
        self.site = Site(
            node="hv1",
            monitors=monitors,
            layout=Layout(self.world, monitors),
            disks=Disks(self.world),
            unfinished=DoomedUnfinished(self._directory, self.world),
            settle=lambda: None,
            log=logging.getLogger("test"),
            pause=self.world.pause,
            clock=lambda: float(next(ticks)),
        )

    def do(self, flow, request, *, stop_at=None):
        self.course = Telling(stop_at)
        return flow(self.site, request, Course(self.course))

    def filled(self, *disks, pgs=8):
        """Have OSDs in service on these disks."""
        for number, disk in enumerate(disks):
            fsid = f"fsid-{number}"
            self.world.osds[number] = Osd(fsid, node="hv1", state="", up=True, pgs=pgs, weight=0.5)
            self.world.disks[disk] = Label(number, fsid)
            self.world.running.add(number)
            self.world.enabled.add(number)
        return self

    def check_nothing_is_half_made(self):
        world = self.world
        assert world.violations == []
        assert self.site.unfinished.load() is None
        for id_, osd in world.osds.items():
            if osd.state == "":
                assert world.label(osd.fsid).whole, f"OSD {id_} has no disk"
                assert id_ in world.running & world.enabled
            assert osd.state != NEW
        labels = [label for _, label in world.labels() if label.cluster == OURS]
        assert {label.fsid for label in labels} <= {osd.fsid for osd in world.osds.values()}


@pytest.fixture
def node(tmp_path):
    return Node(tmp_path)


def every_death(tmp_path, make, act, again=None):
    """Let the daemon die at each moment of ``act`` in turn; then do ``again``.  Yields the node after each."""
    for count in itertools.count():
        node = make(Node(tmp_path / str(count)))
        node.world.doom.after(count)
        try:
            act(node)
        except Died:
            node.start()
            (again or act)(node)
        yield node
        if not node.world.doom.struck:
            assert count > 5
            return


# --- adding -----------------------------------------------------------------------------------------


def test_osd_is_made_on_an_empty_disk(node):
    found = node.do(add, AddRequest(device="/dev/a", weight=0.5, device_class="ssd"))
    assert (found["osds"], found["device"], found["device_class"]) == ("0", "/dev/a", "ssd")
    osd = node.world.osds[0]
    assert (osd.up, osd.inside, osd.weight, osd.device_class) == (True, True, 0.5, "ssd")
    node.check_nothing_is_half_made()
    assert node.course.parts == sorted(node.course.parts)


def test_class_and_weight_are_ceph_s_unless_said(node):
    node.do(add, AddRequest(device="/dev/a"))
    assert (node.world.osds[0].device_class, node.world.osds[0].weight) == ("hdd", 0.0)


@pytest.mark.parametrize("content", ["ext4 (label home)", "gpt", Label(3, "x"), Label(3, "x", cluster=OTHERS)])
def test_disk_with_anything_on_it_is_refused_and_left_alone(node, content):
    node.world.disks["/dev/a"] = content
    with pytest.raises(ObjectBusy, match=r"/dev/a (has data on it: (ext4|gpt)|holds OSD 3)"):
        node.do(add, AddRequest(device="/dev/a"))
    assert node.world.disks["/dev/a"] == content
    assert node.world.osds == {}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (AddRequest(device="/dev/a", count=0), "0 OSDs on a device cannot be had"),
        (AddRequest(device="/dev/a", count=16), "would have 256 MiB each, and need at least 1 GiB"),
        (AddRequest(device="/dev/a", count=3), "one only"),
        (AddRequest(device="/dev/a", weight=-1.0), "weight -1 is none"),
        (AddRequest(device="/dev/a", db_bytes=1, db_percent=1.0), "not both"),
        (AddRequest(device="/dev/a", db_percent=60.0), "0 to 50 %"),
        (AddRequest(device="/dev/a", db="/dev/a"), "cannot hold the metadata of an OSD on itself"),
    ],
)
def test_what_cannot_be_is_refused(node, request_, message):
    with pytest.raises(InvalidRequest, match=message):
        node.do(add, request_)
    assert node.world.osds == {}


@pytest.mark.parametrize("flag", ["noup", "noin"])
def test_flag_that_keeps_osds_from_service_is_respected(node, flag):
    node.world.flags = (flag,)
    with pytest.raises(ObjectBusy, match=f"flag {flag} is set: pvc storage osd flag unset {flag}"):
        node.do(add, AddRequest(device="/dev/a"))
    assert node.world.disks["/dev/a"] is None


def test_nothing_is_let_run_while_no_osd_could_come_up(node):
    node.filled("/dev/a")
    node.world.flags = ("noup",)
    with pytest.raises(ObjectBusy, match="flag noup is set"):
        node.do(refresh, RefreshRequest())


def test_addition_that_cannot_be_undone_is_named(node):
    node.world.doom.after(5)
    with pytest.raises(Died):
        node.do(add, AddRequest(device="/dev/a"))
    node.start()
    wipe = node.site.layout.wipe
    node.site.layout.wipe = lambda _: (_ for _ in ()).throw(DriverError("input/output error"))
    with pytest.raises(DriverError, match=r"an earlier addition on /dev/a was cut off .*input/output error"):
        node.do(refresh, RefreshRequest())
    node.site.layout.wipe = wipe
    node.do(refresh, RefreshRequest())
    node.check_nothing_is_half_made()


def test_osd_that_does_not_come_up_is_taken_back(node):
    node.world.comes_up = False
    with pytest.raises(DriverError, match="OSD 0 did not come up within 180 s"):
        node.do(add, AddRequest(device="/dev/a"))
    assert node.world.osds == {}
    assert node.world.disks["/dev/a"] is None
    assert node.world.running == set()
    node.check_nothing_is_half_made()


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.6])
def test_cancelled_addition_leaves_nothing(node, part):
    node.world.comes_up = part < 0.6
    with pytest.raises(Cancelled):
        node.do(add, AddRequest(device="/dev/a", count=2), stop_at=part)
    assert node.world.osds == {}
    node.check_nothing_is_half_made()


def test_daemon_may_die_at_any_moment_of_an_addition(tmp_path):
    def act(node):
        # One that was up already before the death is kept, and says so.
        with contextlib.suppress(ObjectBusy):
            node.do(add, AddRequest(device="/dev/a"))

    for node in every_death(tmp_path, lambda node: node, act):
        (osd,) = node.world.osds.values()
        assert (osd.up, osd.inside) == (True, True)
        assert node.world.disks["/dev/a"].fsid == osd.fsid
        node.check_nothing_is_half_made()


def test_daemon_may_die_at_any_moment_of_an_addition_of_two(tmp_path):
    def act(node):
        with contextlib.suppress(ObjectBusy):
            node.do(add, AddRequest(device="/dev/a", count=2))

    for node in every_death(tmp_path, lambda node: node, act):
        # Of two one may have been up before the death, and is kept.
        assert 1 <= len(node.world.osds) <= 2
        assert all(osd.up and osd.inside for osd in node.world.osds.values())
        node.check_nothing_is_half_made()


def test_whatever_is_done_next_clears_what_a_death_left(tmp_path):
    def act(node):
        node.do(add, AddRequest(device="/dev/a"))

    for node in every_death(tmp_path, lambda node: node, act, again=lambda node: node.do(refresh, RefreshRequest())):
        node.check_nothing_is_half_made()


def test_daemon_may_die_again_while_it_clears_up(tmp_path):
    def act(node):
        node.do(add, AddRequest(device="/dev/a"))

    for moment in range(2, 14):

        def dies_again(node):
            for count in itertools.count():
                node.world.doom.after(count)
                try:
                    node.do(refresh, RefreshRequest())
                    break
                except Died:
                    node.start()
            node.world.doom.spare()

        node = Node(tmp_path / str(moment))
        node.world.doom.after(moment)
        with contextlib.suppress(Died):
            act(node)
        node.start()
        dies_again(node)
        node.check_nothing_is_half_made()


def test_disk_that_others_took_after_a_death_is_left_to_them(node):
    node.world.doom.after(3)  # the record is there, and the id; nothing is on the disk yet
    with pytest.raises(Died):
        node.do(add, AddRequest(device="/dev/a"))
    node.start()
    node.world.disks["/dev/a"] = "ext4"
    node.do(refresh, RefreshRequest())
    assert node.world.disks["/dev/a"] == "ext4"
    node.check_nothing_is_half_made()


# --- removing ---------------------------------------------------------------------------------------


def test_osd_is_removed_when_nothing_rests_on_it(node):
    node.filled("/dev/a", "/dev/b")
    assert node.do(remove, RemoveRequest(osd=0)) == {"osd": 0, "node": "hv1", "wiped": "/dev/a"}
    assert set(node.world.osds) == {1}
    assert (node.world.disks["/dev/a"], node.world.running) == (None, {1})
    node.check_nothing_is_half_made()
    assert node.course.parts == sorted(node.course.parts)


def test_removal_that_is_cancelled_leaves_the_osd_in_service(node):
    node.filled("/dev/a")
    node.world.drains = False
    with pytest.raises(Cancelled):
        node.do(remove, RemoveRequest(osd=0), stop_at=0.0)
    osd = node.world.osds[0]
    assert (osd.up, osd.inside, osd.weight) == (True, True, 0.5)
    node.check_nothing_is_half_made()


def test_who_asked_for_a_removal_is_told_what_it_waits_for(node):
    node.filled("/dev/a")
    node.do(remove, RemoveRequest(osd=0))
    assert node.course.said == ["OSD 0 waits: busy", ""]


def test_osd_that_was_out_before_stays_out_when_the_removal_is_cancelled(node):
    node.filled("/dev/a")
    node.world.osds[0].inside = node.world.drains = False
    with pytest.raises(Cancelled):
        node.do(remove, RemoveRequest(osd=0), stop_at=0.0)
    assert not node.world.osds[0].inside


def test_removal_that_has_passed_its_last_question_is_not_cancelled(node):
    node.filled("/dev/a", pgs=0)
    node.do(remove, RemoveRequest(osd=0), stop_at=0.8)
    assert node.world.osds == {}
    node.check_nothing_is_half_made()


def test_wait_goes_on_while_another_manager_takes_over(node):
    node.filled("/dev/a")
    answers = iter([NotReady("no manager"), NotReady("no manager")])
    answer = node.site.monitors.safety

    def safety(id_):
        for error in answers:
            raise error
        return answer(id_)

    node.site.monitors.safety = safety
    node.do(remove, RemoveRequest(osd=0))
    assert node.world.osds == {}


def test_wait_ends_when_ceph_is_silent_for_long(node):
    node.filled("/dev/a")

    def safety(id_):
        raise NotReady("no manager")

    node.site.monitors.safety = safety
    with pytest.raises(NotReady, match="no manager"):
        node.do(remove, RemoveRequest(osd=0))
    assert node.world.osds[0].up


def test_force_waits_for_nothing(node):
    node.filled("/dev/a")
    node.world.forced, node.world.drains = True, False
    node.do(remove, RemoveRequest(osd=0, force=True))
    assert node.world.osds == {}
    node.check_nothing_is_half_made()


def test_osd_whose_disk_died_is_removed(node):
    node.filled("/dev/a")
    node.world.disks["/dev/a"] = None
    node.world.osds[0].up = False
    node.world.running.clear()
    wiped = []
    node.site.layout.wipe = wiped.extend
    assert node.do(remove, RemoveRequest(osd=0))["wiped"] == ""
    assert node.world.osds == {}
    assert [store.fsid for store in wiped] == ["fsid-0"], "its metadata may be on another disk"


def test_osd_of_a_node_that_is_gone_is_forgotten_with_force_only(node):
    node.filled("/dev/a")
    node.world.osds[0].node = "hv9"
    with pytest.raises(InvalidRequest, match="OSD 0 is on node hv9, not on hv1"):
        node.do(remove, RemoveRequest(osd=0))
    with pytest.raises(InvalidRequest, match="OSD 0 is up, so node hv9 is not gone"):
        node.do(remove, RemoveRequest(osd=0, force=True, absent=True))
    node.world.osds[0].up = False
    with pytest.raises(InvalidRequest, match="cannot be reached without its node"):
        node.do(remove, RemoveRequest(osd=0, absent=True))
    node.do(remove, RemoveRequest(osd=0, force=True, absent=True))
    assert node.world.osds == {}
    assert node.world.disks["/dev/a"].id == 0, "its disk is not here"


def test_unknown_osd_is_told(node):
    node.filled("/dev/a")
    with pytest.raises(ObjectMissing, match="Ceph has no OSD 7; it has: 0"):
        node.do(remove, RemoveRequest(osd=7))


def test_stale_disk_of_the_same_id_is_not_wiped(node):
    node.filled("/dev/a")
    node.world.disks["/dev/b"] = Label(0, "older")
    node.do(remove, RemoveRequest(osd=0))
    assert node.world.disks["/dev/b"] == Label(0, "older")


def test_osd_is_let_run_again_when_ceph_refuses_its_destruction(node):
    node.filled("/dev/a", pgs=0)
    node.site.monitors.destroy = lambda *_args, **_kwargs: (_ for _ in ()).throw(ObjectBusy("would lose data"))
    with pytest.raises(ObjectBusy, match="would lose data"):
        node.do(remove, RemoveRequest(osd=0))
    assert node.world.running == {0}
    assert node.world.disks["/dev/a"].id == 0


def test_daemon_may_die_at_any_moment_of_a_removal(tmp_path):
    def act(node):
        with contextlib.suppress(ObjectMissing):
            node.do(remove, RemoveRequest(osd=0))

    for node in every_death(tmp_path, lambda node: node.filled("/dev/a", "/dev/b"), act):
        assert set(node.world.osds) == {1}
        assert node.world.disks["/dev/a"] is None
        assert node.world.running == node.world.enabled == {1}
        node.check_nothing_is_half_made()


def test_what_is_removed_loses_its_weight_and_what_is_replaced_keeps_it(node):
    node.filled("/dev/a", "/dev/b")
    node.world.drains = False
    for flow, request in ((remove, RemoveRequest(osd=0)), (replace, ReplaceRequest(osd=1, device="/dev/c"))):
        node.world.doom.after(6)
        with pytest.raises(Died):
            node.do(flow, request)
        node.start()
    assert [osd.weight for osd in node.world.osds.values()] == [0.0, 0.5]


# --- replacing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["/dev/a", "/dev/c"])
def test_osd_gets_another_disk_and_keeps_its_id(node, device):
    node.filled("/dev/a", "/dev/b")
    node.do(replace, ReplaceRequest(osd=0, device=device))
    osd = node.world.osds[0]
    assert (osd.up, osd.inside, osd.weight) == (True, True, 4 * GIB / (1 << 40))
    assert osd.fsid != "fsid-0"
    assert node.world.disks[device].fsid == osd.fsid
    assert set(node.world.osds) == {0, 1}
    node.check_nothing_is_half_made()


def test_disk_that_was_used_while_the_osd_was_emptied_is_not_overwritten(node):
    node.filled("/dev/a")
    pause = node.site.pause

    def meanwhile(seconds):
        node.world.disks["/dev/b"] = "ext4"
        pause(seconds)

    node.site.pause = meanwhile
    with pytest.raises(DriverError, match=r"OSD 0 is destroyed, and keeps its id, but .* has data on it: ext4"):
        node.do(replace, ReplaceRequest(osd=0, device="/dev/b"))
    assert node.world.disks["/dev/b"] == "ext4"
    assert node.world.osds[0].state == DESTROYED


def test_replacement_that_is_cancelled_after_the_destruction_says_so(node):
    node.filled("/dev/a", pgs=0)
    with pytest.raises(DriverError, match=r"OSD 0 is destroyed, and keeps its id, .*cancelled; repeat the command"):
        node.do(replace, ReplaceRequest(osd=0, device="/dev/b"), stop_at=0.58)
    assert node.world.disks["/dev/b"] is None
    node.do(replace, ReplaceRequest(osd=0, device="/dev/b"))
    assert node.world.osds[0].up
    node.check_nothing_is_half_made()


def test_nothing_is_given_up_for_a_disk_that_cannot_be_used(node):
    node.filled("/dev/a", "/dev/b")
    for device in ("/dev/b", "/dev/x"):
        with pytest.raises(DriverError, match=r"holds OSD 1|there is no device"):
            node.do(replace, ReplaceRequest(osd=0, device=device))
    assert node.world.osds[0].fsid == "fsid-0"
    assert node.world.osds[0].inside


@pytest.mark.parametrize("device", ["/dev/a", "/dev/c"])
def test_daemon_may_die_at_any_moment_of_a_replacement(tmp_path, device):
    def act(node):
        # Up already before the death: its new disk holds it.
        if node.world.osds[0].fsid != "fsid-0" and node.world.osds[0].state == "":
            node.do(refresh, RefreshRequest())
        else:
            node.do(replace, ReplaceRequest(osd=0, device=device))

    for node in every_death(tmp_path, lambda node: node.filled("/dev/a", "/dev/b"), act):
        osd = node.world.osds[0]
        assert set(node.world.osds) == {0, 1}
        assert osd.up
        assert node.world.disks[device].fsid == osd.fsid != "fsid-0"
        assert device == "/dev/a" or node.world.disks["/dev/a"] is None
        node.check_nothing_is_half_made()


# --- refreshing -------------------------------------------------------------------------------------


def test_all_osds_of_this_cluster_run_again_after_an_installation(node):
    node.filled("/dev/a", "/dev/b")
    node.world.running.clear()
    node.world.enabled.clear()
    for osd in node.world.osds.values():
        osd.up = False
    node.world.osds[1].inside = False
    node.world.disks["/dev/c"] = Label(0, "x", cluster=OTHERS)
    found = node.do(refresh, RefreshRequest())
    assert found["osds"] == "0,1"
    assert found["refused"] == "/dev/c holds OSD 0 of another Ceph cluster (cluster-b)"
    assert node.world.running == node.world.enabled == {0, 1}
    assert not node.world.osds[1].inside, "what an operator put out stays out"
    assert node.do(refresh, RefreshRequest()) == found


def test_osd_that_was_removed_meanwhile_does_not_come_back(node):
    node.filled("/dev/a")
    node.world.disks["/dev/b"] = Label(0, "older")
    node.world.disks["/dev/c"] = Label(5, "gone")
    found = node.do(refresh, RefreshRequest())
    assert found["osds"] == "0"
    assert found["refused"].count("was removed or replaced") == 2
    assert node.world.violations == []


def test_disk_that_another_node_uses_is_left_to_it(node):
    node.filled("/dev/a", "/dev/b")
    node.world.osds[1].node = "hv2"
    node.world.running.discard(1)
    found = node.do(refresh, RefreshRequest(moved=True))
    assert (found["osds"], found["refused"]) == ("0", "/dev/b holds OSD 1, which runs on node hv2")
    node.world.osds[1].up = False
    assert "holds OSD 1 of node hv2; if its disk was carried here" in node.do(refresh, RefreshRequest())["refused"]
    assert node.world.running == {0}
    assert node.do(refresh, RefreshRequest(moved=True))["osds"] == "0,1"
    assert node.world.osds[1].node == "hv1"


def test_daemon_may_die_at_any_moment_of_a_refresh(tmp_path):
    def make(node):
        node.filled("/dev/a", "/dev/b")
        node.world.running.clear()
        node.world.enabled.clear()
        return node

    for node in every_death(tmp_path, make, lambda node: node.do(refresh, RefreshRequest())):
        assert node.world.running == node.world.enabled == {0, 1}
        node.check_nothing_is_half_made()


# --- what changes no disk ---------------------------------------------------------------------------


def test_osds_are_put_out_and_in(node):
    node.filled("/dev/a", "/dev/b")
    node.do(cluster.put_out, cluster.OsdsRequest(osds=(0, 1)))
    assert [osd.inside for osd in node.world.osds.values()] == [False, False]
    node.do(cluster.put_in, cluster.OsdsRequest(osds=(1,)))
    assert [osd.inside for osd in node.world.osds.values()] == [False, True]
    node.world.osds[0].weight = 0.0  # of a removal that was cut off
    node.do(cluster.put_in, cluster.OsdsRequest(osds=(0, 1)))
    assert [osd.weight for osd in node.world.osds.values()] == [4 * GIB / (1 << 40), 0.5]
    with pytest.raises(ObjectMissing, match="no OSD 9"):
        node.do(cluster.put_in, cluster.OsdsRequest(osds=(9,)))
    with pytest.raises(InvalidRequest, match="name at least one"):
        node.do(cluster.put_out, cluster.OsdsRequest(osds=()))


def test_flags(node):
    node.do(cluster.set_flag, cluster.FlagRequest(flag="noout", wanted=True))
    assert node.world.flags == ("noout",)
    for request in (
        cluster.FlagRequest(flag="noscrub", wanted=True, osds=(0,)),
        cluster.FlagRequest(flag="full", wanted=True),
    ):
        with pytest.raises(InvalidRequest, match="is no flag of"):
            node.do(cluster.set_flag, request)


def test_volume_group_for_metadata_is_made_on_an_empty_disk_only(node):
    found = node.do(cluster.create_db_group, cluster.GroupRequest(device="/dev/a"))
    assert (found["group"], found["device"]) == ("group", "/dev/a")
    with pytest.raises(ObjectBusy, match="/dev/a has data on it: LVM2_member"):
        node.do(cluster.create_db_group, cluster.GroupRequest(device="/dev/a"))


def test_record_that_cannot_be_read_is_told(node, tmp_path):
    (tmp_path / "unfinished.json").write_text("{")
    with pytest.raises(DriverError, match=r"unfinished\.json cannot be read"):
        node.do(refresh, RefreshRequest())


def test_arguments_of_tasks_are_read_as_they_come():
    arguments = {"device": "/dev/a", "count": 2, "weight": "0.5", "db_percent": "2.5"}
    found = msgspec.convert(arguments, AddRequest, strict=False)
    assert (found.count, found.weight, found.db_percent) == (2, 0.5, 2.5)
