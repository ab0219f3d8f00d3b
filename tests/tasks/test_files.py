"""A user's own task file: what is read, and every mistake told by file, line and field."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from t5study.ground.errors import UserError
from t5study.tasks.addresses import find
from t5study.tasks.files import hashed_split, task_from_file

HEADER = '{"metric": "accuracy"}\n'


def rows(n: int = 60) -> list[dict[str, object]]:
    return [{"input": f"tone: text number {i}", "target": ("glad", "sad")[i % 2]} for i in range(n)]


def jsonl(path: Path, items: list[dict[str, object]], header: str = HEADER) -> Path:
    path.write_text(header + "".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def test_json_lines(tmp_path: Path) -> None:
    task = find(str(jsonl(tmp_path / "tone.jsonl", rows())))
    assert (task.name, task.column, task.metric, task.labels) == ("tone", "tone", "accuracy", ("glad", "sad"))
    train, validation = task.rows("train"), task.rows("validation")
    assert len(train) + len(validation) == 60
    assert 1 <= len(validation) <= 15
    assert not {row.input for row in train} & {row.input for row in validation}
    assert train[0].input == "tone: text number 0"
    assert train[0].id == "tone-2"


def test_the_same_rows_as_tsv_gz_and_with_a_bom_are_the_same_task(tmp_path: Path) -> None:
    plain = task_from_file(jsonl(tmp_path / "tone.jsonl", rows()))
    text = "# metric: accuracy\ninput\ttarget\n" + "".join(f"{r['input']}\t{r['target']}\r\n" for r in rows())
    tsv = tmp_path / "tone.tsv"
    tsv.write_bytes(b"\xef\xbb\xbf" + text.encode())
    packed = tmp_path / "tone.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "tone.jsonl").read_bytes()))
    assert task_from_file(packed).value == plain.value
    for split in ("train", "validation"):
        told = [(row.input, row.target) for row in plain.rows(split)]
        assert [(row.input, row.target) for row in task_from_file(tsv).rows(split)] == told


def test_adding_rows_moves_no_row_to_the_other_side(tmp_path: Path) -> None:
    few = {row.input for row in task_from_file(jsonl(tmp_path / "a.jsonl", rows(60))).rows("validation")}
    more = {row.input for row in task_from_file(jsonl(tmp_path / "a.jsonl", rows(200))).rows("validation")}
    assert few < more
    assert all(hashed_split(text) == "validation" for text in more)


def test_splits_references_and_settings(tmp_path: Path) -> None:
    items: list[dict[str, object]] = [
        {"input": "q: who?", "target": "Ann", "references": ["Ann B.", "Ann"], "split": "validation", "id": 7},
        {"input": "q: why?", "target": "so", "split": "train", "note": "other fields are let be"},
    ]
    header = '{"metric": "squad", "name": "quiz", "target_length": 16}\n'
    task = task_from_file(jsonl(tmp_path / "a.jsonl", items, header))
    (row,) = task.rows("validation")
    assert (task.name, task.labels, task.target_length) == ("quiz", (), 16)
    assert (row.id, row.references) == ("7", ("Ann B.", "Ann"))
    tsv = tmp_path / "b.tsv"
    tsv.write_text('input\ttarget\treferences\tsplit\nq\tAnn\t["Ann B."]\tvalidation\nr\tso\t\ttrain\n')
    (row,) = task_from_file(tsv, "squad").rows("validation")
    assert row.references == ("Ann", "Ann B.")


def test_a_second_file_for_validation(tmp_path: Path) -> None:
    jsonl(tmp_path / "held.jsonl", [{"input": "tone: held out", "target": "sad"}], header="")
    task = task_from_file(jsonl(tmp_path / "a.jsonl", rows(4), '{"metric": "accuracy", "validation": "held.jsonl"}\n'))
    assert [row.input for row in task.rows("validation")] == ["tone: held out"]
    assert len(task.rows("train")) == 4


def test_text_targets_without_a_label_set(tmp_path: Path) -> None:
    items: list[dict[str, object]] = [{"input": f"i{i}", "target": f"target {i}"} for i in range(300)]
    assert task_from_file(jsonl(tmp_path / "a.jsonl", items)).labels == ()
    assert task_from_file(jsonl(tmp_path / "a.jsonl", items, ""), "bleu").metric == "bleu"


def test_line_separators_inside_text_end_no_line(tmp_path: Path) -> None:
    items = rows()
    items[3]["input"] = "tone: one\u2028two\u0085three"
    path = tmp_path / "a.jsonl"
    path.write_text(HEADER + "".join(json.dumps(item, ensure_ascii=False) + "\n\n" for item in items), encoding="utf-8")
    task = task_from_file(path)
    assert "tone: one\u2028two\u0085three" in {
        row.input for split in ("train", "validation") for row in task.rows(split)
    }


# --- bad input --------------------------------------------------------------------------------------------------

GOOD = "".join(json.dumps(item) + "\n" for item in rows(40))
BAD_JSONL = {
    "target missing": (
        HEADER + GOOD + '{"input": "x"}\n',
        r"line 42: field target: missing, found 'input'; add target",
    ),
    "near-miss field": (HEADER + '{"inputs": "x", "target": "y"}\n', r"line 2: field input: missing.*rename 'inputs'"),
    "label a number": (
        HEADER + GOOD + '{"input": "x", "target": 1}',
        r"line 42: field target: found the number 1; write",
    ),
    "input null": (HEADER + '{"input": null, "target": "y"}', r"line 2: field input: found the null None"),
    "empty target": (HEADER + '{"input": "x", "target": " "}', r"line 2: field target: found an empty text"),
    "label outside the set": (
        '{"metric": "accuracy", "labels": ["glad", "sad"]}\n' + GOOD + '{"input": "x", "target": "gald"}',
        r"line 42: field target: found 'gald'; give one of glad, sad",
    ),
    "hidden test labels": (
        HEADER + '{"input": "x", "target": "-1"}\n{"input": "y", "target": "-1"}\n',
        r"field target: found '-1' in every row; .*hidden test labels cannot be scored",
    ),
    "hidden label among declared": (
        '{"metric": "f1", "labels": ["0", "1"]}\n{"input": "x", "target": "-1"}\n',
        r"line 2: field target: found '-1'; give one of 0, 1",
    ),
    "no metric": (
        GOOD,
        r"field metric: found none; put '\{\"metric\": \"accuracy\"\}' on the first line or give --metric",
    ),
    "unknown metric": ('{"metric": "acc"}\n' + GOOD, r"a.jsonl: metric: found 'acc'; give one of accuracy"),
    "metric no text": ('{"metric": 3}\n' + GOOD, r"line 1: field metric: found 3; give a text"),
    "unknown setting": ('{"metric": "accuracy", "label": []}\n' + GOOD, r"line 1: field label: unknown.*mean labels"),
    "one label": ('{"metric": "accuracy", "labels": ["a"]}\n' + GOOD, r"field labels: found \['a'\]; give two or more"),
    "length as text": (
        '{"metric": "accuracy", "input_length": "64"}\n' + GOOD,
        r"field input_length: found '64'; give a whole number",
    ),
    "labels of text": ('{"metric": "bleu", "labels": ["glad", "sad"]}\n' + GOOD, r"field labels: found with bleu"),
    "f1 without order": ('{"metric": "f1"}\n' + GOOD, r"field labels: .*f1 needs two, named in the order negative"),
    "classes without end": (
        '{"metric": "matthews"}\n' + "".join(f'{{"input": "{i}", "target": "t{i}"}}\n' for i in range(200)),
        r"found 200 different targets; matthews is for classes",
    ),
    "no number": ('{"metric": "pearson"}\n' + GOOD, r"line 2: field target: found 'glad', which is no number"),
    "cut line": (HEADER + GOOD + '{"input": "x", "tar', r"line 42: found invalid JSON"),
    "NaN": (HEADER + '{"input": "x", "target": NaN}', r"line 2: found NaN, which is not JSON"),
    "same key twice": (HEADER + '{"input": "x", "input": "y", "target": "z"}', r"line 2: found the same key twice"),
    "deep": (HEADER + "[" * 100_000 + "\n", r"line 2: found (nesting too deep|invalid JSON)"),
    "a list": (HEADER + '["x", "y"]\n', r"line 2: found a list; give one JSON object a line"),
    "pretty-printed": ('[\n  {"input": "x", "target": "y"}\n]', r"line 1: found invalid JSON"),
    "surrogate": (HEADER + '{"input": "\\ud800", "target": "y"}', r"line 2: field input: found half of a surrogate"),
    "split": (
        HEADER + '{"input": "x", "target": "y", "split": "test"}',
        r"field split: found 'test'; give train or val",
    ),
    "split in some": (
        HEADER + GOOD + '{"input": "x", "target": "sad", "split": "train"}',
        r"line 42: field split: found, unlike line 2; give all rows one or none",
    ),
    "only one side": (
        HEADER + "".join(f'{{"input": "{t}", "target": "{t}", "split": "train"}}\n' for t in "ab"),
        r"found no validation rows among 2; give more rows",
    ),
    "validation in training": (
        HEADER
        + '{"input": "x", "target": "a", "split": "train"}\n{"input": "x ", "target": "b", "split": "validation"}\n',
        r"line 3: field input: found in line 2 of a.jsonl for training too",
    ),
    "same id": (
        HEADER + '{"id": "q1", "input": "x", "target": "a"}\n{"id": "q1", "input": "y", "target": "b"}',
        r"line 3: field id: found 'q1' again, first in line 2 of a.jsonl",
    ),
    "id a list": (HEADER + '{"id": [1], "input": "x", "target": "a"}', r"line 2: field id: found \[1\]"),
    "references": (
        HEADER + '{"references": "x", "input": "x", "target": "a"}',
        r"field references: found 'x'; give a list",
    ),
    "nothing": ("", r"a.jsonl: found no rows"),
    "only blank lines": ("\n \n" * 1000, r"a.jsonl: found no rows"),
    "only settings": (HEADER, r"a.jsonl: found no rows"),
    "file of another task": (
        HEADER + '{"question": "x", "passage": "y", "label": true}',
        r"line 2: field input: missing, found 'question', 'passage', 'label'; add input",
    ),
}


@pytest.mark.parametrize("case", sorted(BAD_JSONL))
def test_bad_json_lines(case: str, tmp_path: Path) -> None:
    text, message = BAD_JSONL[case]
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        task_from_file(tmp_path / "a.jsonl")
    assert str(caught.value).startswith(str(tmp_path / "a.jsonl"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


BAD_TSV = {
    "no header": ("tone: x\tglad\n", r"line 1: found columns 'tone: x', 'glad'; name the columns.*input and target"),
    "of GLUE": ("sentence\tlabel\nx\t1\n", r"line 1: found columns 'sentence', 'label'"),
    "too many columns": ("input\ttarget\nx\ty\tz\n", r"line 2: found 3 columns where the first line names 2"),
    "two of one name": ("input\ttarget\ttarget\nx\ty\tz\n", r"line 1: found two columns of one name"),
    "empty target": ("# metric: accuracy\ninput\ttarget\nx\t\n", r"line 3: field target: missing"),
    "setting": ("# accuracy\ninput\ttarget\nx\ty\n", r"line 1: found '# accuracy'; write settings as"),
    "references": ('input\ttarget\treferences\nx\ty\t["a\n', r"line 2: found invalid JSON"),
    "no metric": ("input\ttarget\nx\ty\n", r"put '# metric: accuracy' on the first line"),
}


@pytest.mark.parametrize("case", sorted(BAD_TSV))
def test_bad_tsv(case: str, tmp_path: Path) -> None:
    text, message = BAD_TSV[case]
    (tmp_path / "a.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        task_from_file(tmp_path / "a.tsv")


def test_bad_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for data, message in [
        (HEADER.encode() + b'{"input": "caf\xe9", "target": "y"}', r"line 2: found bytes that are not UTF-8 at 14"),
        ((HEADER + GOOD).encode("utf-16"), r"line 1: found bytes that are not UTF-8"),
        (b"\0" * 1000, r"line 1: found a NUL character"),
    ]:
        path.write_bytes(data)
        with pytest.raises(UserError, match=message):
            task_from_file(path)
    packed = tmp_path / "a.jsonl.gz"
    for data in (gzip.compress(GOOD.encode())[:-20], GOOD.encode()):
        packed.write_bytes(data)
        with pytest.raises(UserError, match="found damaged gzip data"):
            task_from_file(packed)


def test_not_a_task_file_at_all(tmp_path: Path) -> None:
    other = tmp_path / "a.csv"
    other.write_text("input,target\n")
    with pytest.raises(UserError, match=r"found a file of another kind; give a \.jsonl"):
        find(str(other))
    folder = tmp_path / "folder.jsonl"
    folder.mkdir()
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        find(str(folder))


def test_splits_and_a_second_file_do_not_go_together(tmp_path: Path) -> None:
    jsonl(tmp_path / "held.jsonl", [{"input": "h", "target": "sad"}], header="")
    items = [{**item, "split": "train"} for item in rows(4)]
    path = jsonl(tmp_path / "a.jsonl", items, '{"metric": "accuracy", "validation": "held.jsonl"}\n')
    with pytest.raises(UserError, match="field split: found beside the setting validation"):
        task_from_file(path)
    path = jsonl(tmp_path / "a.jsonl", rows(4), '{"metric": "accuracy", "validation": "gone.jsonl"}\n')
    with pytest.raises(UserError, match=r"gone\.jsonl: no such file"):
        task_from_file(path)
    path = jsonl(
        tmp_path / "a.jsonl",
        [{"input": "h", "target": "sad"}, *rows(4)],
        '{"metric": "accuracy", "validation": "held.jsonl"}\n',
    )
    with pytest.raises(
        UserError, match=r"held\.jsonl: line 1: field input: found in line 2 of a\.jsonl for training too"
    ):
        task_from_file(path)
