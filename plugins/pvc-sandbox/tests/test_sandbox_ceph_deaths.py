"""``up`` dies at every moment while it makes Ceph, and the next one goes on from there."""

import shutil
from pathlib import Path

import pytest

from pvc_core.plugin.process import Completed
from pvc_core.testkit.doomed import Died, Doom
from pvc_sandbox import boot, ceph, ceph_admin
from pvc_sandbox.ceph_records import load_first_osd, make_record
from pvc_sandbox.layout import Layout

NODES = (1, 2, 3)
FOUNDERS = 2
"""The third node came later: monitors choose its id."""


class Cluster:
    """Monitors and hosts that remember what was done to them; each effect has a moment before and after it."""

    def __init__(self, directory, doom):
        self.layout = Layout(name="t", index=7, state=str(directory))
        self.doom = doom
        self.known = {}
        self.disks = {}
        self.running = set()
        self.hosts = [Host(self, number) for number in NODES]

    def effect(self, act):
        self.doom.moment()
        result = act()
        self.doom.moment()
        return result

    def ask(self, _conf, _switch, request, _answer, *, deadline_s):
        assert deadline_s > 0
        assert {"ceph-mon@hv1"} <= {name for _, name in self.running}, "there is nobody to ask"
        return self.effect(lambda: ceph_admin.Ids(tuple(map(self._register, request.osds))))

    def _register(self, osd):
        known = next((id_ for id_, uuid in self.known.items() if uuid == osd.uuid), None)
        if known is None:
            known = osd.id if osd.id is not None else max([*self.known, -1]) + 1
            assert known not in self.known, "another OSD has this id"
            self.known[known] = osd.uuid
        assert osd.id in (None, known)
        return known


class Host:
    """A node that is on."""

    def __init__(self, cluster, number):
        self.cluster, self.layout, self.number = cluster, cluster.layout, number
        self.name, self.state = f"hv{number}", cluster.layout.node_state(number)
        for kind in ("mon", "mgr", "osd"):
            (self.state / "ceph/lib" / kind).mkdir(parents=True, exist_ok=True)

    def exec(self, argv, *, deadline_s):
        assert deadline_s > 0
        assert argv[0] == "flock"
        self.cluster.effect(lambda: self._run(argv[2:]))
        return Completed(argv=tuple(argv), returncode=0, stdout="", stderr="")

    def _run(self, argv):
        if argv[0] == "blkdiscard":
            assert f"ceph-osd@{self._osd_id()}" not in {name for number, name in self.cluster.running}
            self.cluster.disks[self.number] = ""
        else:
            data = Path(argv[-1])
            (data / "whole").touch()
            if argv[0] == "ceph-osd":
                assert self.cluster.disks[self.number] == "", "what an earlier mkfs left is still there"
                assert (data / "keyring").exists()
                self.cluster.disks[self.number] = argv[argv.index("--osd-uuid") + 1]

    def _osd_id(self):
        return load_first_osd(self.layout, self.number).id

    def start_service(self, service):
        kind, _, id_ = service.name.partition("@")
        data = self.state / "ceph/lib" / kind.removeprefix("ceph-") / f"ceph-{id_}"
        assert (data / ("keyring" if kind == "ceph-mgr" else "whole")).exists(), "it has nothing to start from"
        if kind == "ceph-osd":
            assert int(id_) in self.cluster.known, "monitors refuse an OSD that they do not know"
        self.cluster.effect(lambda: self.cluster.running.add((self.number, service.name)))


def each(hosts, act):
    for host in hosts:
        act(host)


@pytest.fixture
def make(tmp_path, monkeypatch):
    def make():
        shutil.rmtree(tmp_path / "state", ignore_errors=True)
        cluster = Cluster(tmp_path / "state", Doom())
        make_record(cluster.layout, [1], FOUNDERS)
        for module, name in ((ceph, "write_first_osd"), (boot, "enable"), (ceph, "write_atomically")):
            real = originals[name]
            monkeypatch.setattr(
                module, name, lambda *words, real=real, **more: cluster.effect(lambda: real(*words, **more))
            )
        monkeypatch.setattr(ceph_admin, "ask", cluster.ask)
        return cluster

    originals = {
        "write_first_osd": ceph.write_first_osd,
        "enable": boot.enable,
        "write_atomically": ceph.write_atomically,
    }
    return make


def go_on(cluster):
    """What each ``up`` does."""
    lacking = ceph.unfinished(cluster.layout, NODES)
    ceph.bring_up([host for host in cluster.hosts if host.number in lacking], len(NODES), each)


def test_death_at_any_moment_is_made_good_by_the_next_up(make):
    moments = 0
    for count in range(500):
        cluster = make()
        cluster.doom.after(count)
        try:
            go_on(cluster)
        except Died:
            go_on(cluster)
        cluster.doom.spare()
        check(cluster)
        if not cluster.doom.struck:
            moments = count
            break
    assert moments > 40


def check(cluster):
    osds = {number: load_first_osd(cluster.layout, number) for number in NODES}
    assert all(osd.made for osd in osds.values())
    assert {number: osd.id for number, osd in osds.items()} == {1: 0, 2: 1, 3: 2}
    assert cluster.known == {osd.id: osd.uuid for osd in osds.values()}
    assert cluster.disks == {number: osd.uuid for number, osd in osds.items()}
    wanted = {(1, "ceph-mon@hv1"), (1, "ceph-mgr@hv1"), (1, "ceph-osd@0"), (2, "ceph-osd@1"), (3, "ceph-osd@2")}
    assert cluster.running == wanted
    assert {(host.number, service.name) for host in cluster.hosts for service in boot.enabled(host.state)} == wanted
    assert not list(Path(cluster.layout.state).rglob(".ceph-*"))
    assert ceph.unfinished(cluster.layout, NODES) == []


def test_what_was_taken_away_later_stays_away(make):
    cluster = make()
    go_on(cluster)
    boot.disable(cluster.hosts[0].state, "ceph-osd@0")
    before = set(cluster.running)
    go_on(cluster)
    assert cluster.running == before
    assert not boot.is_enabled(cluster.hosts[0].state, "ceph-osd@0")
