"""Compare-and-set by files: nothing is lost, also by writers that slept."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pvc_dir import versions


@pytest.fixture
def document(tmp_path):
    versions.create(tmp_path, b"0")
    return tmp_path


def _add_one(document) -> None:
    while True:
        now = versions.read(document)
        assert now is not None
        if versions.replace(document, now, str(int(now.data) + 1).encode()):
            return


def test_a_replaced_document_is_read(document):
    first = versions.read(document)
    assert versions.replace(document, first, b"1")
    assert versions.read(document).data == b"1"


def test_of_two_writers_that_read_the_same_one_wins(document):
    old = versions.read(document)
    assert versions.replace(document, old, b"mine")
    assert not versions.replace(document, old, b"yours")
    assert versions.read(document).data == b"mine"


@pytest.mark.parametrize("missed", [1, 2, 3, 10, 40])
def test_a_writer_that_slept_while_others_wrote_loses(document, missed):
    old = versions.read(document)
    for _ in range(missed):
        _add_one(document)
    assert not versions.replace(document, old, b"late")
    assert versions.read(document).data == str(missed).encode()


def test_a_writer_that_is_overtaken_after_its_write_has_won(document, monkeypatch):
    old, real = versions.read(document), versions.sync_directory
    overtaken = threading.Event()

    def overtake(directory):
        real(directory)
        if not overtaken.is_set():
            overtaken.set()
            for _ in range(5):
                _add_one(document)

    monkeypatch.setattr(versions, "sync_directory", overtake)
    assert versions.replace(document, old, b"100")
    assert versions.read(document).data == b"105"


def test_no_change_of_many_writers_is_lost(document):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: _add_one(document), range(100)))
    assert versions.read(document).data == b"100"
    assert len(list(document.iterdir())) <= 3


def test_an_absent_document_is_none(tmp_path):
    assert versions.read(tmp_path / "absent") is None
    assert versions.read(tmp_path) is None


def test_a_document_that_was_removed_cannot_be_replaced(document, tmp_path_factory):
    old = versions.read(document)
    document.rename(tmp_path_factory.mktemp("trash") / "gone")
    with pytest.raises(FileNotFoundError):
        versions.replace(document, old, b"late")


def test_something_else_is_not_taken_for_a_document(document):
    (document / "state.2").write_text("hello\n")
    with pytest.raises(OSError, match="not a volume's state"):
        versions.read(document)
