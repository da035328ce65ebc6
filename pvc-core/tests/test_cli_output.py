"""Tables, sheets, JSON and YAML; colours; standard output is for results only."""

import re

import msgspec
import pytest
import yaml

from pvc_core.cli.output import Block, Cell, Column, Line, Output, plain, table_lines, to_yaml, written
from pvc_core.model.disk import Disk, DiskLimits
from pvc_core.model.vm import Tag


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    size: int = 0
    tags: frozenset[str] = frozenset()
    disk: Disk | None = None


ROWS = [Row("alpha", 5, frozenset({"b", "a"})), Row("be", 12345)]
COLUMNS = (
    Column("Name", lambda row: Cell(row.name, "name")),
    Column("Size", lambda row: str(row.size), right=True),
    Column("Tags", lambda row: ",".join(sorted(row.tags))),
)


def test_a_plain_table_is_aligned_and_has_a_dash_for_nothing() -> None:
    assert table_lines(COLUMNS, ROWS) == [
        "NAME    SIZE  TAGS",
        "alpha      5  a,b",
        "be     12345  -",
    ]


def test_a_table_in_a_pipe_has_no_colours(capsys: pytest.CaptureFixture[str]) -> None:
    Output().listing(ROWS, COLUMNS, empty="none")
    assert "\x1b" not in capsys.readouterr().out


def test_a_table_with_colours_has_the_same_words(capsys: pytest.CaptureFixture[str]) -> None:
    Output(colour="always").listing(ROWS, COLUMNS, empty="none")
    printed = capsys.readouterr().out
    assert "\x1b[" in printed
    bare = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    assert [line.split() for line in bare.splitlines()] == [line.split() for line in table_lines(COLUMNS, ROWS)]


def test_text_from_outside_is_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Output(colour="always").listing([Row("[bold]x[/bold]")], COLUMNS, empty="none")
    assert "[bold]x[/bold]" in capsys.readouterr().out


@pytest.mark.parametrize("colour", ["always", "never"])
def test_a_sheet_has_its_lines_and_its_tables(capsys: pytest.CaptureFixture[str], colour: str) -> None:
    sheet = [Line("Name", "alpha"), Line("Nothing", ""), Block("Parts", COLUMNS, ROWS), Block("Empty", COLUMNS, [])]
    Output(colour=colour).record(ROWS[0], sheet)  # type: ignore[arg-type]
    bare = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = [" ".join(line.split()) for line in bare.splitlines()]
    assert lines[:2] == ["Name alpha", "Nothing -"]
    assert "alpha 5 a,b" in lines
    assert not any("Empty" in line for line in lines)


def test_nothing_to_list_is_a_note_and_an_empty_array(capsys: pytest.CaptureFixture[str]) -> None:
    Output().listing([], COLUMNS, empty="no things")
    assert capsys.readouterr() == ("", "no things\n")
    Output("json").listing([], COLUMNS, empty="no things")
    assert capsys.readouterr() == ("[]\n", "")


def test_json_has_every_field_also_at_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    Output("json").data([Row("x", disk=Disk(pool="p", volume="v"))])
    assert msgspec.json.decode(capsys.readouterr().out) == [
        {
            "name": "x",
            "size": 0,
            "tags": [],
            "disk": {
                "pool": "p",
                "volume": "v",
                "bus": "virtio",
                "read_only": False,
                "cache": "none",
                "discard": True,
                "limits": dict.fromkeys(DiskLimits.__struct_fields__, 0),
                "removing": False,
            },
        }
    ]


def test_yaml_and_json_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    Output("yaml").data(ROWS)
    from_yaml = yaml.safe_load(capsys.readouterr().out)
    Output("json").data(ROWS)
    assert from_yaml == msgspec.json.decode(capsys.readouterr().out) == plain(ROWS)


@pytest.mark.parametrize(
    "text", ["<a>\n  <b/>\n</a>", "ends\n", "\n leading", "tab\there\nx", "trailing \nblank", "yes", "12", "é\n"]
)
def test_text_of_several_lines_survives_yaml_and_is_readable(text: str) -> None:
    written_text = to_yaml({"overlay": text})
    assert yaml.safe_load(written_text) == {"overlay": text}
    if text.startswith("<"):
        assert written_text == "overlay: |-\n  <a>\n    <b/>\n  </a>\n"


def test_what_is_written_for_people_leaves_defaults_out() -> None:
    row = Row("x", disk=Disk(pool="p", volume="v", read_only=True))
    assert written([row, Tag(name="t")]) == [
        {"name": "x", "disk": {"pool": "p", "volume": "v", "read_only": True}},
        {"name": "t"},
    ]


def test_quiet_mutes_notes_and_sentences_but_neither_data_nor_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(quiet=True)
    out.note("note")
    out.done("it is done", id=1)
    out.warn("careful")
    out.text("text")
    assert capsys.readouterr() == ("text\n", "pvc: warning: careful\n")


def test_a_change_is_a_sentence_or_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    Output().done("it is done", vm=Row("x"))
    assert capsys.readouterr().out == "it is done\n"
    Output("json").done("it is done", vm=Row("x"))
    found = msgspec.json.decode(capsys.readouterr().out)
    assert (found["message"], found["vm"]["name"]) == ("it is done", "x")


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_the_environment_can_forbid_colours(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Output().coloured(Terminal())
    monkeypatch.setenv(variable, value)
    assert not Output().coloured(Terminal())
    assert Output(colour="always").coloured(Terminal())


WIDE = (
    Column("Name", lambda row: row.name),
    Column("More", lambda row: "m" * 30, extra=True),
    Column("Reason", lambda row: "because of this and that and something else too", long=True),
)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("120", ["alpha", "m" * 30, "because of this and that and something else too"]),
        ("64", ["alpha", "m" * 30, "because of this and that…"]),
        ("50", ["alpha", "because of this and that and something els…"]),
    ],
)
def test_a_list_keeps_to_one_line_a_row_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str, expected: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    Output(colour="always").listing(ROWS[:1], WIDE, empty="none")
    bare = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert re.split(r"\s{2,}", bare.splitlines()[1].rstrip()) == expected
    assert len(bare.splitlines()) == 2


def test_what_cannot_be_narrower_is_not_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    name = "a-name-that-is-longer-than-the-terminal"
    Output(colour="always").listing([Row(name)], WIDE[:1], empty="none")
    assert name in capsys.readouterr().out
