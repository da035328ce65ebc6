"""What is read of disks, and what is made of it: verdicts, classes, LVM's reports, risks."""

import msgspec
import pytest

from pvc_ceph.osd.devices import block, one_block, parse_signatures
from pvc_ceph.osd.lvm import LvmLayout, parse_list, volume_fsids
from pvc_ceph.osd.raw import new_key
from pvc_ceph.osd.risks import without
from pvc_ceph.osd.tools import Tools
from pvc_ceph.osd.values import Block, Found, OsdList, OsdRow
from pvc_ceph.osd.verdict import advice, refusals
from pvc_core.model.errors import InvalidRequest, PvcError
from pvc_core.plugin import Completed, DriverError

GIB = 1 << 30
OURS = "5fb3ea33-5543-4785-b292-7daf42c3d2eb"

# lsblk 2.38 --json --bytes --output NAME,PATH,TYPE,SIZE,RO,ROTA,MOUNTPOINTS,MODEL,SERIAL,TRAN
LSBLK = """{"blockdevices": [
 {"name":"sda","path":"/dev/sda","type":"disk","size":480103981056,"ro":false,"rota":false,"mountpoints":[null],
  "model":"INTEL SSDSC2KB48","serial":"PHYF1","tran":"sata","children":[
   {"name":"sda1","path":"/dev/sda1","type":"part","size":1073741824,"ro":false,"rota":false,"mountpoints":["/boot"],
    "model":null,"serial":null,"tran":null},
   {"name":"sda2","path":"/dev/sda2","type":"part","size":479029190656,"ro":false,"rota":false,"mountpoints":[null],
    "model":null,"serial":null,"tran":null,"children":[
     {"name":"vg-root","path":"/dev/mapper/vg-root","type":"lvm","size":53687091200,"ro":false,"rota":false,
      "mountpoints":["/"],"model":null,"serial":null,"tran":null},
     {"name":"vg-swap","path":"/dev/mapper/vg-swap","type":"lvm","size":8589934592,"ro":false,"rota":false,
      "mountpoints":["[SWAP]"],"model":null,"serial":null,"tran":null}]}]},
 {"name":"sdb","path":"/dev/sdb","type":"disk","size":4000787030016,"ro":false,"rota":true,"mountpoints":[null],
  "model":"HGST HUS726T4TAL","serial":"V1","tran":"sas"},
 {"name":"nvme0n1","path":"/dev/nvme0n1","type":"disk","size":1600321314816,"ro":false,"rota":false,"mountpoints":[null],
  "model":"SAMSUNG MZPLJ1T6","serial":"S1","tran":"nvme"},
 {"name":"sr0","path":"/dev/sr0","type":"rom","size":1073741312,"ro":false,"rota":true,"mountpoints":[null],
  "model":"VIRTUAL","serial":null,"tran":"usb"}]}"""
WIPEFS = """{"signatures": [
 {"device":"sdb","offset":"0x200","type":"gpt","uuid":null,"label":null},
 {"device":"sdb","offset":"0x3a3817d5e00","type":"gpt","uuid":null,"label":null},
 {"device":"sdb","offset":"0x1fe","type":"PMBR","uuid":null,"label":null}]}"""
EXT4 = '{"signatures": [{"device":"loop14","offset":"0x438","type":"ext4","uuid":"1c8a","label":"home"}]}'
EMPTY = '{"signatures": [\n\n   ]}'


def blocks():
    return {row["name"]: block(row, {}) for row in msgspec.json.decode(LSBLK)["blockdevices"]}


def verdict(disk, signatures=(), *, busy=False, osds=(), **options):
    return refusals(disk, signatures, busy=busy, cluster=OURS, osds=osds, **options)


def test_disks_are_read_with_all_that_lies_on_them():
    found = blocks()
    assert found["sda"].mounted == ("/", "/boot", "[SWAP]")
    assert found["sda"].uses == ("partition sda1", "partition sda2", "lvm vg-root", "lvm vg-swap")
    assert (found["sdb"].uses, found["sdb"].mounted) == ((), ())
    assert (found["sdb"].model, found["sdb"].serial) == ("HGST HUS726T4TAL", "V1")


def test_class_is_by_the_kind_of_disk():
    assert {name: disk.device_class for name, disk in blocks().items() if name != "sr0"} == {
        "sda": "ssd",
        "sdb": "hdd",
        "nvme0n1": "nvme",
    }


def test_stable_path_is_preferred():
    row = msgspec.json.decode(LSBLK)["blockdevices"][1]
    assert block(row, {"/dev/sdb": "/dev/disk/by-id/scsi-3"}).name == "/dev/disk/by-id/scsi-3"
    assert block(row, {}).name == "/dev/sdb"


def test_signatures_are_read():
    assert parse_signatures(WIPEFS) == ("gpt", "PMBR")
    assert parse_signatures(EXT4) == ("ext4 (label home)",)
    assert parse_signatures(EMPTY) == ()


def test_empty_disk_is_taken():
    assert verdict(blocks()["sdb"]) == ()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "sda",
            {},
            "is mounted at /, /boot, [SWAP]; is used by partition sda1, partition sda2, lvm vg-root and 1 more",
        ),
        ("sdb", {"signatures": ("gpt", "PMBR")}, "has data on it: gpt, PMBR"),
        ("sdb", {"busy": True}, "is open in another program, or in the kernel"),
        ("sdb", {"unreadable": "Input/output error"}, "cannot be read (Input/output error)"),
        ("sr0", {"least_bytes": 1}, "is no whole disk but of type rom"),
        ("sdb", {"least_bytes": 1 << 42}, "has 3.6 TiB, and 4 TiB are needed"),
    ],
)
def test_disk_is_refused_with_what_was_found(name, options, message):
    assert "; ".join(verdict(blocks()[name], **options)) == message


def test_disk_with_an_osd_says_which():
    disk = blocks()["sdb"]
    mine = Found(id=3, fsid="f", cluster=OURS, device="/dev/sdb", data="/dev/sdb")
    others = msgspec.structs.replace(mine, cluster="x")
    assert verdict(disk, ("ceph_bluestore",), busy=True, osds=[mine]) == ("holds OSD 3",)
    assert verdict(disk, ("ceph_bluestore",), osds=[others]) == ("holds OSD 3 of another Ceph cluster (x)",)
    assert verdict(disk, ("LVM2_member", "ext4"), osds=[mine]) == ("holds OSD 3", "has data on it: ext4")


def test_advice_says_how_data_is_wiped_only_where_that_helps():
    assert advice("/dev/sdb", ["has data on it: gpt"]).endswith("wipe it on its node: wipefs --all /dev/sdb")
    assert advice("/dev/sdb", ["is mounted at /"]) == "/dev/sdb is mounted at /"


@pytest.mark.parametrize(
    ("device", "message"), [("/dev/null", "is no block device"), ("sdb", "no device"), ("/x", "no")]
)
def test_what_is_no_disk_is_refused(device, message):
    with pytest.raises(PvcError, match=message):
        one_block(lambda *_, **__: None, device)


# --- layouts ----------------------------------------------------------------------------------------

# ceph-volume 16.2 lvm list --format json, shortened
LISTED = """{"3": [
 {"devices":["/dev/sdb"],"lv_name":"osd-block-aea7","lv_path":"/dev/pvc-osd-aea7/osd-block-aea7","lv_size":"2143289344",
  "tags":{"ceph.cluster_fsid":"ours","ceph.osd_fsid":"aea7","ceph.osd_id":"3","ceph.type":"block"},"type":"block"},
 {"devices":["/dev/nvme0n1"],"lv_name":"osd-db-aea7","lv_path":"/dev/pvc-db-1/osd-db-aea7","lv_size":"268435456",
  "tags":{"ceph.cluster_fsid":"ours","ceph.osd_fsid":"aea7","ceph.osd_id":"3","ceph.type":"db"},"type":"db"},
 {"devices":["/dev/sdc"],"lv_name":"osd-block-old","lv_path":"/dev/ceph-1/osd-block-old","lv_size":"2143289344",
  "tags":{"ceph.cluster_fsid":"theirs","ceph.osd_fsid":"old","ceph.osd_id":"3","ceph.type":"block"},"type":"block"}]}"""


def test_osds_on_volumes_are_found_with_their_metadata():
    mine, old = parse_list(LISTED)
    assert (mine.id, mine.fsid, mine.cluster, mine.device) == (3, "aea7", "ours", "/dev/sdb")
    assert mine.db == "/dev/pvc-db-1/osd-db-aea7"
    assert (old.cluster, old.device, old.db) == ("theirs", "/dev/sdc", "")
    assert parse_list("{}") == []


def test_volume_belongs_to_an_osd_by_its_name_and_by_its_tags():
    assert volume_fsids({"lv_name": "osd-block-a", "lv_tags": ""}) == {"a"}
    assert volume_fsids({"lv_name": "osd-db-a", "lv_tags": "ceph.osd_fsid=a,ceph.type=db"}) == {"a"}
    assert volume_fsids({"lv_name": "x", "lv_tags": "ceph.type=block,ceph.osd_fsid=b"}) == {"b"}
    assert volume_fsids({"lv_name": "root", "lv_tags": ""}) == set()


VGS = """{"report": [{"vg": [
 {"vg_name":"pvc-db-1","vg_free":"10737418240","vg_extent_size":"4194304","lv_count":"0"},
 {"vg_name":"pvc-db-2","vg_free":"21474836480","vg_extent_size":"4194304","lv_count":"2"},
 {"vg_name":"system","vg_free":"99999999999","vg_extent_size":"4194304","lv_count":"2"}]}]}"""
LVS = """{"report": [{"lv": [
 {"vg_name":"pvc-db-1","lv_name":"osd-db-f","lv_tags":"ceph.osd_fsid=f,ceph.type=db","lv_size":"16106127360"},
 {"vg_name":"pvc-db-1","lv_name":"osd-db-g","lv_tags":"ceph.osd_fsid=g,ceph.type=db","lv_size":"4294967296"},
 {"vg_name":"system","lv_name":"root","lv_tags":"","lv_size":"4294967296"}]}]}"""


@pytest.fixture
def lvm(tmp_path):
    """Layout ``lvm`` on a node with two groups for metadata."""

    class OnPaper(Tools):
        def __init__(self):
            self.run = lambda argv, **_: Completed(
                argv=tuple(argv), returncode=0, stdout={"vgs": VGS, "lvs": LVS}[argv[0]], stderr=""
            )

    return LvmLayout(OnPaper(), None, "/etc/ceph/ceph.conf", tmp_path, tmp_path / "keyring")


def test_metadata_goes_where_most_room_is(lvm):
    assert lvm.db_for("", 4 * GIB, 2) == "pvc-db-2"
    assert lvm.db_for("pvc-db-1", 4 * GIB, 2) == "pvc-db-1"


def test_metadata_of_the_osd_that_is_replaced_makes_room(lvm):
    """Also when its disk is gone, and nothing but that volume is left of it."""
    assert lvm.db_for("", 25 * GIB, 1, {"f"}) == "pvc-db-1"
    with pytest.raises(InvalidRequest, match="pvc-db-1 has 25 GiB free"):
        lvm.db_for("", 26 * GIB, 1, {"f"})


@pytest.mark.parametrize(
    ("wanted", "size", "count", "kind", "message"),
    [
        ("", 8 * GIB, 3, InvalidRequest, "pvc-db-2 has 20 GiB free, and 3 x 8 GiB of metadata need 24 GiB"),
        ("pvc-db-1", 8 * GIB, 2, InvalidRequest, "pvc-db-1 has 10 GiB free"),
        ("system", GIB, 1, DriverError, "has no volume group system; make one .* pvc storage osd create-db-vg"),
        ("", 0, 1, InvalidRequest, "give --db-size or --db-ratio"),
        ("/dev/nvme0n1", GIB, 1, InvalidRequest, "pvc storage osd create-db-vg NODE /dev/nvme0n1"),
    ],
)
def test_metadata_that_has_no_place_is_refused(lvm, wanted, size, count, kind, message):
    with pytest.raises(kind, match=message):
        lvm.db_for(wanted, size, count)


def test_keys_are_those_of_cephx():
    first, second = new_key(), new_key()
    assert len(first) == 40
    assert first.startswith("AQ")
    assert first != second


# --- risks ------------------------------------------------------------------------------------------


def osds(*hosts, used=0.5, copies=3):
    rows = [
        OsdRow(id=id_, node=host, size_bytes=GIB, used_bytes=int(used * GIB), up=True, inside=True)
        for id_, host in enumerate(hosts)
    ]
    return OsdList(fsid=OURS, osds=tuple(rows), copies=copies)


def test_osd_whose_data_has_room_elsewhere_is_no_risk():
    assert without(osds("a", "a", "b", "b", "c", "c"), [0]) == ()


def test_last_osd_of_a_host_that_holds_a_copy_of_all_is_a_risk():
    (said,) = without(osds("a", "b", "c"), [1])
    assert said.startswith("without OSD 1 2 hosts have OSDs, and each of the 3 copies needs another host")


def test_disks_that_would_be_too_full_are_a_risk():
    (said,) = without(osds("a", "a", "b", "b", "c", "c", used=0.8), [0])
    assert "the other OSDs would be 96 % full (4.8 GiB of 5 GiB)" in said


def test_nothing_is_said_of_what_is_not_known():
    listing = osds("a", "a", "b", "b", "c", "c", used=0.8)
    assert without(msgspec.structs.replace(listing, measured=False), [0]) == ()


def test_osd_that_is_out_already_takes_nothing_away():
    listing = osds("a", "b", "c")
    out = msgspec.structs.replace(listing.osds[1], inside=False)
    assert without(msgspec.structs.replace(listing, osds=(listing.osds[0], out, listing.osds[2])), [1]) == ()


def test_host_bytes_count_what_takes_data_of_a_class():
    listing = osds("a", "a", "b")
    assert listing.host_bytes() == {"a": 2 * GIB, "b": GIB}
    assert listing.host_bytes("ssd") == {}


def test_block_without_a_stable_path_is_called_by_its_own():
    assert Block(path="/dev/sdx", type="disk", size_bytes=1).name == "/dev/sdx"
