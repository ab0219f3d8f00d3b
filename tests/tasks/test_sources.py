"""Where rows come from: which files are taken, how they are read, and the one line that each mistake ends in."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from t5study.ground.errors import UserError
from t5study.tasks.addresses import find
from t5study.tasks.records import Record, document, table, texts
from t5study.tasks.sources import Home, read_rows
from t5study.tasks.task import DATA, TEST, Row

FILES = {"train": ("train.tsv",), "validation": ("dev.tsv",), TEST: ("test.tsv",)}
HOME = Home("glue/toy", ("glue/Toy", "Toy"), FILES, "toys.example")


def put(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def names(folder: Path, split: str, home: Home = HOME) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in home.files(folder, split)]


# --- which files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["glue/Toy", "GLUE/toy", "toy", "Toy"])
def test_a_folder_is_found_by_any_of_its_names_and_in_any_case(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    assert HOME.folder(tmp_path) == tmp_path / place


def test_the_official_file_is_read_alone_packed_or_not(tmp_path: Path) -> None:
    for name in ("train_more.tsv", "train.tsv.gz", "dev_first.tsv", "Dev.tsv", "test.jsonl"):
        put(tmp_path / name, "")
    assert names(tmp_path, "train") == ["train.tsv.gz"]
    assert names(tmp_path, "validation") == ["Dev.tsv"]
    put(tmp_path / "train.tsv", "")
    assert names(tmp_path, "train") == ["train.tsv"]


def test_else_all_files_that_are_named_after_the_split(tmp_path: Path) -> None:
    for name in (
        *("train_32.jsonl", "train_32_more.jsonl.zst", "train_unlabelled.jsonl.gz", "training.tsv", "toy-en-train.csv"),
        *("val_first_half.tsv", "validation-00000-of-00002.parquet", "validation-00001-of-00002.parquet"),
        *("test_unlabelled.tsv", "train.txt", "retest.tsv", "README.md", "train.tsv.bak"),
    ):
        put(tmp_path / name, "")
    assert names(tmp_path, "train") == ["toy-en-train.csv", "train_32.jsonl", "train_32_more.jsonl.zst"]
    assert names(tmp_path, "validation") == [
        *("val_first_half.tsv", "validation-00000-of-00002.parquet", "validation-00001-of-00002.parquet"),
    ]
    assert names(tmp_path, TEST) == ["test_unlabelled.tsv"]


def test_a_split_may_be_a_folder_and_the_hub_puts_one_between(tmp_path: Path) -> None:
    put(tmp_path / "train" / "0000.parquet", "")
    put(tmp_path / "train" / "0001.parquet", "")
    put(tmp_path / "plain_text" / "validation-00000-of-00001.parquet", "")
    assert names(tmp_path, "train") == ["train/0000.parquet", "train/0001.parquet"]
    assert names(tmp_path, "validation") == ["plain_text/validation-00000-of-00001.parquet"]


def test_words_of_others_are_left_out_and_a_split_that_is_none_of_its_is_empty(tmp_path: Path) -> None:
    for name in ("dev_matched.tsv", "dev_mismatched.tsv"):
        put(tmp_path / name, "")
    home = Home("toy", ("Toy",), {"validation": ("none.tsv",)}, "", without=("mismatched",))
    assert names(tmp_path, "validation", home) == ["dev_matched.tsv"]
    assert names(tmp_path, "train", home) == []


# --- how they are read ------------------------------------------------------------------------------------------


def fields(path: Path, *columns: str) -> list[dict[str, object]]:
    return [dict(record.fields) for record in table(path, columns)]


def test_a_tsv_has_no_quotes_and_only_a_newline_ends_a_row(tmp_path: Path) -> None:
    content = '\ufeffa\tb\r\n"one\ttwo"\r\n\x08three\u2028\tfour\x85\x12\n'
    expected = [{"a": '"one', "b": 'two"'}, {"a": "\x08three\u2028", "b": "four\x85\x12"}]
    assert fields(put(tmp_path / "x.tsv", content)) == expected
    assert fields(put(tmp_path / "x.tsv.gz", gzip.compress(content.encode()))) == expected
    assert fields(put(tmp_path / "x.tsv.zst", zstandard.compress(content.encode()))) == expected
    assert fields(put(tmp_path / "y.tsv", "one\t\n"), "a", "b") == [{"a": "one", "b": ""}]


def test_the_other_formats_give_the_same(tmp_path: Path) -> None:
    expected: list[dict[str, object]] = [{"a": 'say "no"', "b": "x\ny"}, {"a": "é", "b": "z"}]
    assert fields(put(tmp_path / "x.csv", '\ufeffa,b\n"say ""no""","x\ny"\né,z\n')) == expected
    assert fields(put(tmp_path / "h.csv", '"say ""no""","x\ny"\né,z\n'), "a", "b") == expected
    lines = "".join(json.dumps(row) + "\n" for row in expected)
    assert fields(put(tmp_path / "x.jsonl", lines)) == fields(put(tmp_path / "x.json", lines)) == expected
    assert fields(put(tmp_path / "l.json.gz", gzip.compress(json.dumps(expected, indent=0).encode()))) == expected
    pq.write_table(pa.Table.from_pylist(expected), tmp_path / "x.parquet")
    assert fields(tmp_path / "x.parquet") == expected
    assert document(put(tmp_path / "d.json", '{"data": [1]}')) == {"data": [1]}


def test_texts_keep_blank_lines_and_their_numbers(tmp_path: Path) -> None:
    assert list(texts(put(tmp_path / "x", "\ufeffone\r\n\n three \n"))) == [(1, "one"), (2, ""), (3, " three ")]
    assert list(texts(put(tmp_path / "x", ""))) == []


def test_broken_lines_are_told_or_left_out_where_they_are_known(tmp_path: Path) -> None:
    path = put(tmp_path / "x.tsv", "a\tb\n1\t2\n3\n4\t5\t6\n7\t8\n")
    with pytest.raises(UserError, match=r"x\.tsv: row 3: found 1 columns, not 2; get a fresh copy$"):
        fields(path)
    assert [record.fields["a"] for record in table(path, ragged=True)] == ["1", "7"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.tsv", b"a\tb\n\xff\tc\n", r"row 2: found bytes that are not UTF-8; save it as UTF-8"),
        ("x.tsv", b"a\tb\n\0\tc\n", r"row 2: found a NUL character; get a fresh copy"),
        ("x.jsonl", b'{"a": 1}\n{"a": \n', r"row 2: found invalid JSON \(Expecting value\); get a fresh copy"),
        ("x.jsonl", b"[1]\n", r"row 1: found \[1\]; a row is one JSON object"),
        ("x.jsonl", b"[" * 100_000, r"row 1: found JSON nested too deep; get a fresh copy"),
        ("x.json", b"[1, 2]", r"row 0: found 1; a row is one JSON object"),
        ("x.csv", b'a,b\n"one,two\n', r"row 2: found no CSV \(unexpected end of data\); get a fresh copy"),
        ("x.csv", b"a,b\none\n", r"row 2: found 1 columns, not 2; get a fresh copy"),
        ("x.csv", b"a,b\n\xff,b\n", r"row 1: found no CSV \('utf-8' codec can't decode .*; get a fresh copy"),
        ("x.tsv.gz", gzip.compress(b"a\tb\n" * 99, mtime=0)[:-9], r"found damaged data \(.*; get a fresh copy"),
        ("x.tsv.gz", b"plain", r"found damaged data \(Not a gzipped file .*; get a fresh copy"),
        ("x.tsv.zst", b"plain", r"found damaged data \(.*; get a fresh copy"),
        ("x.parquet", b"plain", r"cannot be read \(.*; get a fresh copy"),
        ("x.xml", b"<a/>", r"found a file of another kind; give a \.tsv, \.csv, \.jsonl, \.json, \.parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: {told}") as caught:
        list(table(path))
    assert "\n" not in str(caught.value)


def test_a_parquet_whose_bytes_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = [{"a": "the same words again and again"} for _ in range(1000)]
    pq.write_table(pa.Table.from_pylist(rows), path, compression="none", write_page_checksum=True, use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"x\.parquet: cannot be read \(.*; get a fresh copy"):
        list(table(path))


def test_a_missing_file_is_told() -> None:
    with pytest.raises(UserError, match=r"^gone\.tsv: cannot be read \(No such file or directory\)"):
        list(table(Path("gone.tsv")))


# --- fields -----------------------------------------------------------------------------------------------------


def record(**given: object) -> Record:
    return Record(Path("x.tsv"), 7, given)


@pytest.mark.parametrize("value", ["yes", "1", 1, True])
def test_a_label_is_a_name_a_number_or_a_truth_value(value: object) -> None:
    assert record(label=value).label(("no", "yes"), "gold", "label", numbered=True) == "yes"


def test_a_number_in_a_text_is_a_label_where_the_task_has_such_alone() -> None:
    with pytest.raises(UserError, match=r"field label: found '1'; give one of no, yes; is this the file of another"):
        record(label="1").label(("no", "yes"), "gold", "label")


def test_truth_values_are_labels_of_their_own() -> None:
    assert [record(label=value).label(("False", "True"), "label") for value in (True, False, 1, 0)] == [
        *("True", "False", "True", "False"),
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (-1, "found -1, a hidden test label; it can be neither learnt from nor scored"),
        ("-1", "found -1, a hidden test label; it can be neither learnt from nor scored"),
        (None, "missing: rows without labels are for the test split, in a file whose name says so"),
        (2, "found 2; give one of no, yes; is this the file of another task?"),
        (0.5, "found 0.5; give one of no, yes; is this the file of another task?"),
        ("Yes", "found 'Yes'; give one of no, yes; is this the file of another task?"),
        ("", "found ''; give one of no, yes; is this the file of another task?"),
        (["yes"], r"found \['yes'\]; give one of no, yes; is this the file of another task?"),
        ("x" * 99, f"found '{'x' * 36}...; give one of no, yes; is this the file of another task?"),
    ],
)
def test_another_label_is_told(value: object, told: str) -> None:
    with pytest.raises(UserError, match=rf"^x\.tsv: row 7: field label: {told.removesuffix('?')}\??$"):
        record(label=value).label(("no", "yes"), "label")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"other": "x"}, r"missing, found 'other'; is this the file of another task\?"),
        ({"text": None}, r"missing, found 'text'; is this the file of another task\?"),
        ({"text": 3}, r"found 3; give a text"),
        ({"text": " \n"}, r"found an empty text; get a fresh copy of the file, or remove the row"),
        ({"text": "a \ud800"}, r"found half of a surrogate pair; get a fresh copy of the file"),
    ],
)
def test_a_text_that_is_none_is_told(given: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=rf"^x\.tsv: row 7: field text: {told}$"):
        record(**given).text("text")
    assert record(words="a", text="b").text("text", "words") == "b"
    assert record(text="").text("text", empty=True) == ""


# --- rows of a task ---------------------------------------------------------------------------------------------


def rendered(one: Record, split: str) -> Iterator[Row]:
    yield Row(one.text("id"), one.text("text"), "" if split == TEST else one.text("label"))


def test_rows_of_all_splits_and_what_is_missing(tmp_path: Path) -> None:
    put(tmp_path / "Toy" / "train.tsv", "id\ttext\tlabel\na\tone\tx\n")
    put(tmp_path / "Toy" / "test.tsv", "id\ttext\na\tone\n")
    rows = read_rows(HOME, tmp_path, rendered)
    assert rows("train") == (Row("a", "one", "x"),)
    assert rows("test") == (Row("a", "one", ""),)
    assert rows("validation") == ()
    assert rows.missing == {"validation": f"put dev.tsv into {tmp_path / 'Toy'}, from toys.example"}


def test_the_same_id_twice_is_told_with_both_places(tmp_path: Path) -> None:
    put(tmp_path / "Toy" / "train_1.tsv", "id\ttext\tlabel\na\tone\tx\n")
    path = put(tmp_path / "Toy" / "train_2.tsv", "id\ttext\tlabel\nb\tone\tx\na\ttwo\tx\n")
    told = f"{path}: row 3: field id: found 'a' again, first in row 2 of train_1.tsv; remove one of the two"
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
        read_rows(HOME, tmp_path, rendered)


def test_where_to_get_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA, raising=False)
    with pytest.raises(UserError, match=r"^task glue/toy: needs glue/Toy/train\.tsv from toys\.example; .* --data or"):
        HOME.folder(None)
    with pytest.raises(UserError, match=r"^nowhere: no such folder; give the folder that has glue/Toy/train\.tsv with"):
        HOME.folder(Path("nowhere"))
    with pytest.raises(
        UserError, match=r": found no folder glue/Toy; put glue/Toy/train\.tsv there, from toys\.example$"
    ):
        HOME.folder(tmp_path)
    (tmp_path / "Toy").mkdir()
    wanted = r"Toy: found no rows of glue/toy; put train\.tsv and dev\.tsv and test\.tsv there, from toys\.example$"
    with pytest.raises(UserError, match=wanted):
        read_rows(HOME, tmp_path, rendered)
    with pytest.raises(
        UserError, match=r"^task glue/cola: needs glue/CoLA/train\.tsv from gluebenchmark\.com/tasks or"
    ):
        find("glue/cola")


def test_the_folder_is_given_or_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "glue" / "SST-2" / "train.tsv", "sentence\tlabel\ngood \t1\nbad \t0\n")
    monkeypatch.setenv(DATA, str(tmp_path))
    assert find("glue/sst2") == find("glue/sst2", data=tmp_path)
    with pytest.raises(UserError, match="^task glue/sst2: found no validation rows; put dev.tsv into "):
        find("glue/sst2").need("validation")
