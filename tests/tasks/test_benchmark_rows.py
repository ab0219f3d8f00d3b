"""Every task of GLUE and SuperGLUE: what its rows look like (a golden file), the same from the hub's layout, and, where
the real data is here, that all of it is read and answers itself."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from invented_benchmarks import hub, official
from shared_data import SHARED

from t5study.tasks import glue, superglue
from t5study.tasks.addresses import find
from t5study.tasks.task import SPLITS, TEST, Row, Task, keep, kept

GOLDEN = Path(__file__).parents[1] / "golden" / "benchmark_rows.txt"
ADDRESSES = [*(f"glue/{name}" for name in glue.TASKS), *(f"superglue/{name}" for name in superglue.TASKS)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return official(tmp_path_factory.mktemp("official"))


def told(task: Task) -> str:
    """A task as the golden file has it: a line for the task, a line a row."""
    lines = [f"{task.name}: {task.metric}; {' | '.join(task.choices) or 'any text'}; {task.target_length} tokens"]
    for split in (*SPLITS, TEST):
        for row in task.rows(split):
            more = [f"references {' | '.join(row.references)}"] * bool(row.references)
            more += [f"group {row.group}"] * bool(row.group)
            text = json.dumps(row.input, ensure_ascii=False)
            lines.append(f"  {split} {row.id}: {text} -> {' ; '.join([row.target or '(none)', *more])}")
    return "\n".join(lines) + "\n"


def test_the_first_rows_of_every_task_are_as_they_were(data: Path) -> None:
    assert "\n".join(told(find(address, data=data)) for address in ADDRESSES) == GOLDEN.read_text(encoding="utf-8")


HUB = [
    *("glue/sst2", "glue/mrpc", "glue/stsb", "glue/mnli_matched", "glue/mnli_mismatched", "glue/qnli", "glue/rte"),
    *("glue/wnli", *(address for address in ADDRESSES if address.startswith("superglue/"))),
]


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hub(tmp_path_factory.mktemp("hub"))


@pytest.mark.parametrize("address", HUB)
def test_the_hubs_parquet_gives_the_same_rows(data: Path, parquet: Path, address: str) -> None:
    ours, theirs = find(address, data=data), find(address, data=parquet)
    named = address.startswith("superglue/") and address != "superglue/dpr"  # else a row is called by its place

    def seen(task: Task, split: str) -> list[Row]:
        return [row if named else replace(row, id="") for row in task.rows(split)]

    for split in (*SPLITS, TEST):
        assert seen(theirs, split) == seen(ours, split)
    assert theirs.rows("validation")


def oracle(task: Task, row: Row) -> str:
    """A right answer in the model's words: another noun, where the candidate is not the referent."""
    return "somebody else" if task.reading == "referent" and row.references[1] == "False" else row.target


def check_scores(task: Task) -> None:
    """The oracle scores 100, no answer 0, and a constant answer what the metric says of it."""
    rows = task.rows("validation")
    found = task.score(rows, [task.parse(oracle(task, row)) for row in rows])
    lost = [row for row in rows if row.references == ("", "True")]  # WNLI: no noun was found, so no answer is right
    assert list(found.values()) == pytest.approx([100 * (len(rows) - len(lost)) / len(rows)] * len(found))
    assert set(task.score(rows, [None] * len(rows)).values()) == {0.0}
    if task.reading == "referent":
        named = Counter(row.references[1] for row in rows)
        assert task.score(rows, ["somebody else"] * len(rows))["accuracy"] == pytest.approx(
            100 * named["False"] / len(rows)
        )
        return
    counts = Counter(row.target for row in rows)
    constant = counts.most_common(1)[0][0]
    scores = task.score(rows, [task.parse(constant)] * len(rows))
    share = counts[constant] / len(rows)
    if "accuracy" in scores:
        assert scores["accuracy"] == pytest.approx(100 * share)
    if "matthews" in scores or "pearson" in scores:
        assert set(scores.values()) == {0.0}
    if "f1" in scores and task.labels:
        right = counts[task.labels[1]] / len(rows)
        assert scores["f1"] == pytest.approx(200 * right / (1 + right) if constant == task.labels[1] else 0)
    if "mean_f1" in scores:
        assert scores["mean_f1"] == pytest.approx(200 * share / (1 + share) / len(task.labels))
    if "f1a" in scores:
        groups = {row.group: True for row in rows}
        for row in rows:
            groups[row.group] &= row.target == constant
        assert scores["em"] == pytest.approx(100 * sum(groups.values()) / len(groups))


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_oracle_has_100_and_a_constant_what_its_metric_says(data: Path, address: str) -> None:
    check_scores(find(address, data=data))


def test_groups_and_references_are_kept(data: Path, tmp_path: Path) -> None:
    for address in ("superglue/multirc", "superglue/record", "superglue/wsc"):
        task = find(address, data=data)
        folder = tmp_path / task.column
        folder.mkdir()
        keep(task, folder)
        assert kept(folder).rows("validation") == task.rows("validation")


# --- the real files ---------------------------------------------------------------------------------------------

# rows as data/README.md counts them; WSC's 64 training rows are 42 once only the positive ones are trained on
REAL = {
    "glue/cola": (8551, 522, 1063),
    "glue/sst2": (67349, 436, 0),
    "glue/mrpc": (3668, 204, 0),
    "glue/stsb": (5749, 750, 0),
    "glue/qqp": (9190, 0, 0),
    "glue/mnli_matched": (9287, 0, 0),
    "glue/qnli": (9999, 2996, 2928),
    "glue/rte": (2490, 139, 3000),
    "glue/wnli": (0, 66, 146),
    "superglue/boolq": (64, 1635, 0),
    "superglue/cb": (64, 28, 0),
    "superglue/copa": (64, 50, 0),
    "superglue/multirc": (321, 2424, 0),
    "superglue/record": (44, 0, 0),
    "superglue/rte": (64, 139, 0),
    "superglue/wic": (64, 319, 0),
    "superglue/wsc": (42, 52, 0),
}
UNREAD = {"glue/wnli": ["30"]}  # the pair whose noun is not found


@lru_cache
def real(address: str) -> Task:
    return find(address, data=SHARED)


@pytest.mark.skipif(SHARED is None, reason="no shared data here")
@pytest.mark.parametrize("address", REAL)
def test_real_rows_are_all_read_and_answer_themselves(address: str) -> None:
    task = real(address)
    assert tuple(len(task.rows(split)) for split in (*SPLITS, TEST)) == REAL[address]
    labelled = [row for split in SPLITS for row in task.rows(split)]
    assert [row.id for row in labelled if task.parse(row.target) != row.target] == UNREAD.get(address, [])
    if task.rows("validation"):
        check_scores(task)


@pytest.mark.skipif(SHARED is None, reason="no shared data here")
def test_real_texts_keep_their_control_characters_quotes_and_last_spaces() -> None:
    cola = [row.input for row in real("glue/cola").rows("train")]
    assert sum(text.count("\x08") for text in cola) == 3
    stsb = real("glue/stsb")
    assert sum(row.input.count("\x12") for split in SPLITS for row in stsb.rows(split)) == 1
    assert all(row.input.endswith(" ") for row in real("glue/sst2").rows("validation"))
    assert any(' sentence2: " ' in row.input for row in real("glue/mrpc").rows("validation"))
