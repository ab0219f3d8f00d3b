"""SQuAD, CNN/Daily Mail and WMT: what their rows look like, on invented files of every layout and on the real ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import invented_texts as invented
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from invented_texts import CLOCK, lines, qa, squad_file
from shared_data import SHARED

from t5study.ground.errors import UserError
from t5study.metrics.answers import NO_ANSWER
from t5study.tasks import cnndm, squad, wmt
from t5study.tasks.addresses import find
from t5study.tasks.task import Task

GOLDEN = Path(__file__).parents[1] / "golden" / "text_tasks.txt"
needs_data = pytest.mark.skipif(SHARED is None, reason="needs the shared data: real benchmark files")


def _told(title: str, task: Task) -> list[str]:
    out = [f"== {title}: {task.name}, {task.column}, {task.metric}, {task.input_length}/{task.target_length}"]
    for split in ("train", "validation"):
        for row in task.rows(split):
            more = f" | {row.references!r}" if row.references else ""
            out.append(f"{split} {row.id}: {row.input!r} -> {row.target!r}{more}")
    return out


def test_rows_are_rendered_as_ever(tmp_path: Path) -> None:
    """The golden file has a line a row. After a change that is meant: rerun, look at what differs, and keep it."""
    makers: list[tuple[str, Callable[[Path], Path], str]] = [
        ("json", invented.squad, "squad/v1"),
        ("json", invented.squad2, "squad/v2"),
        ("csv", invented.cnndm, "cnndm/summarize"),
        ("stories", invented.stories, "cnndm/summarize"),
        ("all layouts", invented.wmt, "wmt/ende"),
        ("one folder", invented.wmt, "wmt/small:de-en"),
        ("one set, two references", invented.wmt, "wmt/en-de@generaltest2022"),
        ("SGM", invented.wmt, "wmt/en-de@newstest2014"),
    ]
    found = []
    for i, (title, make, address) in enumerate(makers):
        task = find(address, data=make(tmp_path / str(i)))
        assert all(value == pytest.approx(100) for value in _oracle(task).values()) or task.metric == "bleu", address
        found += _told(title, task)
    assert "\n".join(found) + "\n" == GOLDEN.read_text(encoding="utf-8")


def _oracle(task: Task) -> dict[str, float]:
    rows = task.evaluation_rows
    return task.score(rows, [task.parse(row.target) for row in rows])


# --- SQuAD ------------------------------------------------------------------------------------------------------


def test_every_ascii_mark_is_spaced_and_white_space_squeezed() -> None:
    """t5 preprocessors.py: [[:punct:]], which leaves the en dash and curly quotes alone, and RE2's \\s, which leaves
    no-break spaces alone."""
    assert squad.pad_punctuation("a_b-c\u2013d \u201ce\u201d\u00a0f\t\n g") == "a _ b - c\u2013d \u201ce\u201d\u00a0f g"
    assert squad.pad_punctuation("".join(map(chr, range(33, 127)))).count(" ") == 16 + 8 + 7 + 5
    assert squad.pad_punctuation("$1,000.50") == " $ 1 , 000 . 50"


def test_squad_trains_on_the_first_answer_and_is_scored_against_all(tmp_path: Path) -> None:
    task = find("squad/v1", data=invented.squad(tmp_path))
    (row, _) = task.rows("validation")
    assert (row.target, row.references) == ("Ann ' s first clock", ("Ann ' s first clock", "clock"))
    assert row.input.startswith(
        "question: What was red ? context: Ann ' s first clock , of 1901 ( a gift ) , was red . It"
    )
    assert task.score([row], ["the clock"]) == {"exact_match": 100.0, "token_f1": 100.0}
    assert task.parse("<extra_id_0> <extra_id_1>") is None
    assert task.parse("  ") is None


def test_squad_of_the_hub_is_the_same(tmp_path: Path) -> None:
    """Columns as the hub stores them: answers as an object of lists, in parquet."""
    official = find("squad/v1", data=invented.squad(tmp_path / "official"))
    folder = tmp_path / "hub" / "squad"
    folder.mkdir(parents=True)
    for split, name in (("train", "train"), ("validation", "validation")):
        source = next((tmp_path / "official" / "squad").glob(f"{'train' if split == 'train' else 'dev'}*"))
        found = [record.fields for record in squad.questions(source, split)]
        columns = {key: [one[key] for one in found] for key in ("id", "question", "context")}
        columns["answers"] = [
            {key: [answer[key] for answer in one["answers"]] for key in ("text", "answer_start")} for one in found
        ]
        pq.write_table(pa.table(columns), folder / f"{name}-00000-of-00001.parquet")
    assert find("squad/v1", data=tmp_path / "hub").digest == official.digest


def test_unanswerable_questions(tmp_path: Path) -> None:
    task = find("squad/v2", data=invented.squad2(tmp_path))
    answered, not_answered = task.rows("validation")
    assert not_answered.target == NO_ANSWER
    assert task.score([answered, not_answered], ["clock", "Ann"])["exact_match"] == 50
    assert task.score([answered, not_answered], [NO_ANSWER, NO_ANSWER])["exact_match"] == 50
    with pytest.raises(UserError, match="found no rows of squad/v1"):
        find("squad/v1", data=tmp_path)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (qa("d1", "Who?"), r"dev-v1.1.json: row 0: field answers: question d1 has none; is this SQuAD 2.0"),
        (qa("d1", "Who?", " "), r"row 0: field answers: found ' '; an answer is a text"),
        ({"id": "d1", "question": "Who?", "answers": "Ann"}, r"field answers: found 'Ann'; give a list of answers"),
        ({"id": "d1", "answers": []}, r"row 0: field question: missing"),
        ({"question": "Who?", "answers": []}, r"row 0: field id: missing"),
        (
            {"id": "d1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": len(CLOCK)}]},
            r"found an answer at 78 in a text of 78 characters",
        ),
        (
            {"id": "d1", "question": "Who?", "answers": [{"text": "Ann", "answer_start": -1}]},
            r"found an answer at -1 in a text of 78 characters",
        ),
    ],
)
def test_questions_that_cannot_be_asked(tmp_path: Path, question: dict[str, object], told: str) -> None:
    squad_file(tmp_path / "squad" / "dev-v1.1.json", question)
    with pytest.raises(UserError, match=told) as error:
        find("squad/v1", data=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ['{"data": {}}', '{"data": [7]}', '{"data": [{"paragraphs": 7}]}', "[7]", "7", "{"])
def test_files_that_are_not_squads(tmp_path: Path, text: str) -> None:
    (tmp_path / "squad").mkdir()
    (tmp_path / "squad" / "train-v1.1.json").write_text(text)
    with pytest.raises(UserError, match=r"train-v1.1.json: .*(SQuAD's layout|no list 'data'|invalid JSON)"):
        find("squad/v1", data=tmp_path)


def test_the_same_question_twice(tmp_path: Path) -> None:
    squad_file(tmp_path / "squad" / "dev-v1.1.json", qa("d1", "Who?", "Ann"), qa("d1", "Whose?", "Ann"))
    with pytest.raises(UserError, match=r"row 1: field id: found 'd1' again, first in row 0"):
        find("squad/v1", data=tmp_path)


@needs_data
def test_the_real_squad_scores_as_officially() -> None:
    """T5 compares with the spaced references. Exact match is then the official one; F1 is a little above it (92.3098
    here), since "24-10" is two words with spaces and one without."""
    task = find("squad/v1", data=SHARED)
    rows = task.rows("validation")
    assert len(rows) == 5696
    assert not task.rows("train")
    answers = [row.references[-1] for row in rows]
    assert task.score(rows, answers) == {"exact_match": 100.0, "token_f1": 100.0}
    assert SHARED is not None
    published = json.loads((SHARED / "squad" / "predictions" / "bert_ensemble.json").read_text(encoding="utf-8"))
    spaced = [squad.pad_punctuation(published[row.id]) for row in rows]
    assert task.score(rows, spaced) == pytest.approx({"exact_match": 86.3237, "token_f1": 92.4754}, abs=5e-5)
    with pytest.raises(UserError, match=r"squad/v1: found no train rows; put train-v1.1.json into .*squad, from"):
        task.need("train")


@needs_data
@pytest.mark.parametrize("language", ["de", "en", "ro"])
def test_the_real_xquad(language: str) -> None:
    task = find(f"squad/xquad_{language}", data=SHARED)
    assert len(task.rows("validation")) == 632
    assert _oracle(task) == {"exact_match": 100.0, "token_f1": 100.0}


# --- CNN/Daily Mail -----------------------------------------------------------------------------------------------


def test_stories_are_read_as_tfds_reads_them(tmp_path: Path) -> None:
    task = find("cnndm/summarize", data=invented.stories(tmp_path))
    (row,) = task.rows("train")
    assert row.input == (
        "summarize: A clock that nobody winds has rung in York . It rang for an hour, and the street came out to look. "
        '"I never touched it," said its owner .'
    )
    assert row.target == "A clock rings in York .\nNobody winds it!"


def test_cnndm_of_the_hub_is_the_same(tmp_path: Path) -> None:
    csv = find("cnndm/summarize", data=invented.cnndm(tmp_path / "csv"))
    folder = tmp_path / "hub" / "summarization" / "cnn_dailymail"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        found = [one.fields for one in cnndm.articles(tmp_path / "csv" / "cnn_dailymail" / f"{split}.csv", split)]
        columns = {key: [one[key] for one in found] for key in ("id", "article", "highlights")}
        pq.write_table(pa.table(columns), folder / f"{split}-00000-of-00001.parquet")
    assert find("cnndm/summarize", data=tmp_path / "hub").digest == csv.digest


def test_articles_that_say_nothing_have_no_row_and_a_lost_story_is_named(tmp_path: Path) -> None:
    task = find("cnndm/summarize", data=invented.cnndm(tmp_path / "csv"))
    assert [row.id for row in task.rows("validation")] == ["bb1"]
    assert _oracle(task)["rouge1"] == pytest.approx(100), "an article and a summary without a sentence's end"
    lost = invented.stories(tmp_path / "stories")
    next(lost.rglob("cnn/stories/*.story")).unlink()
    with pytest.raises(UserError, match=r"all_train.txt: row 1: found no [0-9a-f]{40}.story beside it; put it into"):
        find("cnndm/summarize", data=lost)
    (tmp_path / "other" / "cnndm").mkdir(parents=True)
    (tmp_path / "other" / "cnndm" / "train.csv").write_text("id,text\n1,two\n")
    with pytest.raises(UserError, match=r"train.csv: row 2: field article: missing, found 'id', 'text'"):
        find("cnndm/summarize", data=tmp_path / "other")


@needs_data
def test_the_real_cnndm() -> None:
    task = find("cnndm/summarize", data=SHARED)
    assert (len(task.rows("train")), len(task.rows("validation"))) == (100, 500)
    rows = task.rows("validation")[:40]
    assert task.score(rows, [task.parse(row.target) for row in rows]) == pytest.approx(
        {"rouge1": 100, "rouge2": 100, "rougeLsum": 100}
    )
    as_spoken = [row.target.replace("\n", " ") for row in rows]  # T5's vocabulary has no newline
    assert task.score(rows, as_spoken)["rougeLsum"] > 97


# --- WMT --------------------------------------------------------------------------------------------------------


def test_sets_are_told_by_their_names(tmp_path: Path) -> None:
    data = invented.wmt(tmp_path) / "translation"
    pair = wmt.PAPER[0]
    found = wmt.sets(data, pair)
    assert [(one.folder.name, one.name, len(one.targets)) for one in found] == [
        ("dev", "newstest2014", 1),
        ("general", "generaltest2022", 2),
        ("new", "newstest2013-part", 1),
        ("news", "europarl-v7", 1),
        ("small", "train", 1),
        ("small", "val", 1),
    ]
    split = wmt.split_of(found, pair)
    assert {key: [one.name for one in these] for key, these in split.items()} == {
        "train": ["europarl-v7", "train"],
        "validation": ["newstest2013-part"],
    }
    any_pair = wmt.Pair("en-de", "en", "de")
    assert [one.name for one in wmt.split_of(found, any_pair)["validation"]] == ["val"]
    without = [one for one in found if one.name != "val"]
    assert [one.name for one in wmt.split_of(without, any_pair)["validation"]] == ["generaltest2022"]
    back = [one.name for one in wmt.sets(data, wmt.Pair("de-en", "de", "en"))]
    assert back == ["europarl-v7", "newstest2013-part", "train", "val"] or set(back) == {
        "europarl-v7", "newstest2013-part", "train", "val",
    }, "a source of one direction is no reference of the other"  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("europarl-v7", "train"),
        ("news-commentary-v9", "train"),
        ("train-tok-clean", "train"),
        ("train_test_2", "train"),
        ("newsdev2016", "dev"),
        ("validation-00000-of-00001", "dev"),
        ("iwslt14-ted-dev2010", "dev"),
        ("news-test2008", "test"),
        ("newstest2013-first_1500", "test"),
        ("iwslt14-ted-tst2013", "test"),
        ("devtest", "test"),
        ("test_2016_flickr", "test"),
    ],
)
def test_no_set_to_be_scored_on_is_trained_on(name: str, kind: str) -> None:
    found = wmt.split_of([wmt.ParallelSet(name, Path(), None, ())], wmt.Pair("cs-en", "cs", "en"))
    assert [split for split, these in found.items() if these] == ["train" if kind == "train" else "validation"]
    both = [wmt.ParallelSet(one, Path(), None, ()) for one in ("dev", name)]
    assert wmt.split_of(both, wmt.Pair("cs-en", "cs", "en"))["train"] == both[1:] * (kind == "train")


def test_wmt_of_the_hub(tmp_path: Path) -> None:
    folder = tmp_path / "wmt" / "wmt14" / "de-en"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        rows = [{"de": f"eine {split} Uhr", "en": f"a {split} clock"}]
        pq.write_table(pa.table({"translation": rows}), folder / f"{split}-00000-of-00001.parquet")
    pq.write_table(pa.table({"translation": [{"cs": "x", "en": "y"}]}), folder / "train-cs.parquet")
    task = find("wmt/ende", data=tmp_path)
    (trained,), (row,) = task.rows("train"), task.rows("validation")
    assert (trained.input, trained.target) == ("translate English to German: a train clock", "eine train Uhr")
    assert row.input == "translate English to German: a validation clock"
    (back,) = find("wmt/de-en", data=tmp_path).rows("train")
    assert (back.input, back.target) == ("translate German to English: eine train Uhr", "a train clock")


def test_names_of_languages() -> None:
    for name, told in (("ende", "German"), ("enfr", "French"), ("enro", "Romanian")):
        pair = next(one for one in wmt.PAPER if one.name == name)
        assert pair.prefix == f"translate English to {told}: "
    with pytest.raises(UserError, match=r"task wmt/en-xx: found the language 'xx'; give one of af, "):
        wmt.other("en-xx")
    for name in ("en-en", "ende2", "en_de", "a/b:en-de", "en-de@"):
        assert wmt.other(name) is None, name


def test_lines_that_differ_in_number_or_are_blank(tmp_path: Path) -> None:
    root = tmp_path / "translation"
    lines(root / "dev.en", "one", "two")
    lines(root / "dev.de", "eins", "zwei", "drei")
    with pytest.raises(UserError, match=r"dev.de: found 3 sentences where dev.en has 2; line N of one"):
        find("wmt/en-de", data=tmp_path)
    lines(root / "dev.de", "eins", " ")
    with pytest.raises(UserError, match=r"dev.de: row 2: found a blank line"):
        find("wmt/en-de", data=tmp_path)
    (root / "dev.de").rename(root / "train.de")
    (root / "dev.en").rename(root / "train.en")
    assert [row.target for row in find("wmt/en-de", data=tmp_path).rows("train")] == ["eins"]
    lines(root / "newstest2014-src.en.sgm", "no segment")
    lines(root / "newstest2014-ref.de.sgm", "kein Segment")
    with pytest.raises(UserError, match=r"newstest2014-src.en.sgm: found no <seg> in it"):
        find("wmt/en-de", data=tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found no folder translation; put translation/newstest2013.en there|put"):
        find("wmt/ende", data=tmp_path)
    (tmp_path / "wmt").mkdir()
    with pytest.raises(UserError, match=r"found no two files of ende; put newstest2013.en and its like in .de there"):
        find("wmt/ende", data=tmp_path)
    lines(tmp_path / "wmt" / "dev.en", "one")
    lines(tmp_path / "wmt" / "dev.cs", "jedna")
    task = find("wmt/en-cs", data=tmp_path)
    with pytest.raises(UserError, match=r"found no train rows; put train.en and train.cs into .*wmt"):
        task.need("train")


@needs_data
@pytest.mark.parametrize(
    ("address", "train", "validation"),
    [
        ("wmt/ende", 29_000, 1500),
        ("wmt/enfr", 29_000, 1014),
        ("wmt/enro", 0, 1000),
        ("wmt/multi30k:en-fr", 29_000, 1014),
        ("wmt/multi30k:en-de@test_2016_flickr", 0, 1000),
        ("wmt/de-en@generaltest2022", 0, 1984),
        ("wmt/de-fr@generaltest2022", 0, 1984),
    ],
)
def test_the_real_translations(address: str, train: int, validation: int) -> None:
    task = find(address, data=SHARED)
    rows = task.rows("validation")
    assert (len(task.rows("train")), len(rows)) == (train, validation)
    few = rows[:100]
    assert task.score(few, [task.parse(row.target) for row in few])["bleu"] == pytest.approx(100)
    if "de-en@" in address:
        assert all(len(row.references) == 2 for row in rows), "references A and B"


@needs_data
def test_real_lines_are_as_they_stand() -> None:
    assert SHARED is not None
    with gzip.open(SHARED / "translation" / "multi30k" / "val.de.gz", "rt", encoding="utf-8") as file:
        first = file.readline()
    assert find("wmt/multi30k:en-de", data=SHARED).rows("validation")[0].target + "\n" == first
    sgm = SHARED / "metrics" / "bleu_mteval13a" / "newstest2015-100sents-enru-src.en.sgm"
    plain = SHARED / "metrics" / "bleu_mteval13a" / "newstest-2015-100sents.en-ru.src.en"
    assert wmt.sentences(sgm) == [" ".join(line.split()) for line in wmt.sentences(plain)]
