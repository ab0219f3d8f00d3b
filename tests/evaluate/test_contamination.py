"""Contamination: words and runs against plain Python, the two rules by hand, and how little is held of a corpus."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from t5study.corpus.page import Page
from t5study.evaluate import ngrams
from t5study.evaluate.contamination import RULES, contamination, fields
from t5study.ground.errors import UserError
from t5study.tasks.task import Row, Rows, Task, make_task

WORDS = [f"word{i}" for i in range(400)]
ANY = replace(RULES["gpt3"], n=8, common=0)


def toy(*inputs: str, labels: tuple[str, ...] = ("no", "yes"), target: str = "yes") -> tuple[Task, tuple[Row, ...]]:
    rows = tuple(Row(str(i), text, target) for i, text in enumerate(inputs))
    metric = {"metric": "accuracy", "labels": labels} if labels else {"metric": "squad"}
    return make_task("toy/rows", Rows({"train": (), "validation": rows}), **metric), rows


def found(inputs: list[str], *corpus: str, rule=ANY, **settings):
    (one,) = contamination([toy(*inputs, **settings)], [Page(text, f"page {i}") for i, text in enumerate(corpus)], rule)
    return one


# --- words and runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cup's on-hand, isn't it?", ["the", "cups", "onhand", "isnt", "it"]),
        ("  \t one\u2028two\u00a0three\n", ["one", "two", "three"]),
        ("\u00c9COLE \u041c\u0418\u0420", ["\u00e9cole", "\u043c\u0438\u0440"]),
        ("\u201cquoted\u201d \u2014 50% \u20ac5 a_b", ["quoted", "50", "5", "ab"]),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 e\u0301", ["\u0939\u093f\u0928\u094d\u0926\u0940", "e\u0301"]),
        ("\ud800 \U0001f600 \x00", []),
        ("", []),
    ],
)  # fmt: skip
def test_words(text: str, words: list[str]):
    assert ngrams.words(text) == words
    alone = [ngrams.word_numbers(word)[0] for word in words]
    assert ngrams.word_numbers(text).tolist() == alone


def _plain(text: str, n: int) -> list[tuple[str, ...]]:
    words = ngrams.words(text)
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


@pytest.mark.parametrize("n", [1, 2, 8, 13])
def test_runs_are_found_and_counted_as_plain_python_does(n: int):
    """Few words, so that runs come again; every run of the corpus is looked up in the table and in a dictionary."""
    random = np.random.default_rng(n)
    few = WORDS[: 3 if n > 2 else 40]
    asked, corpus = (" ".join(random.choice(few, size)) for size in (300, 3000))
    run_G = ngrams.runs(ngrams.word_numbers(asked), n)
    assert len(run_G) == 300 - n + 1
    plain = _plain(asked, n)
    assert len(set(run_G.tolist())) == len(set(plain)), "equal runs have equal numbers, others have others"
    table = ngrams.Table.of(run_G, n)
    seen = np.empty(10_000, np.int64)
    new = table.see(ngrams.word_numbers(corpus), seen)
    inside = _plain(corpus, n)
    counts = table.count_T[table.places(run_G)].tolist()
    assert counts == [inside.count(run) for run in plain]
    assert new == len(set(plain) & set(inside)) > 0
    assert sorted(seen[:new]) == sorted(set(table.places(run_G)[np.array(counts) > 0]))
    assert table.see(ngrams.word_numbers(corpus), seen) == 0, "seen before"
    stranger = ngrams.runs(ngrams.word_numbers("quite " * 20), n)
    assert (table.places(stranger) == -1).all()


def test_no_two_of_a_million_runs_share_a_number():
    text = " ".join(str(i % 1009 * 31 + i // 1009) for i in range(300_000))
    run_G = ngrams.runs(ngrams.word_numbers(text), 3)
    assert len(set(run_G.tolist())) == len(set(_plain(text, 3)))


# --- rules --------------------------------------------------------------------------------------------------------


def _text(first: int, last: int) -> str:
    return " ".join(WORDS[first:last])


def test_a_row_that_the_corpus_holds_is_found_with_the_document_and_the_words():
    rows = ["q: " + _text(0, 20), "q: " + _text(100, 120), "q: " + _text(200, 205)]
    one = found(rows, "nothing here", "Before it: " + _text(5, 15).upper() + ", and after.")
    assert one.dirty_N.tolist() == [True, False, False]
    assert one.share_N[0] == pytest.approx(3 / 13), "the runs from 5 to 7, of 13"
    assert (one.dirty, one.short, one.n) == (1, 1, 8)
    (example,) = one.examples
    assert (example.id, example.document, example.run) == ("0", "page 1", _text(5, 13))
    told = one.summary()
    assert (told["rows"], told["dirty"], told["too_short"]) == (3, 1, 1)
    assert told["dirty_per_cent"] == pytest.approx(100 / 3)
    assert told["mean_share"] == pytest.approx(3 / 26)


def test_runs_do_not_go_from_one_field_or_document_into_the_next():
    one = found(["toy a: " + _text(0, 6) + " b: " + _text(6, 12), "toy a: x b: y"], _text(0, 12))
    assert one.short == 2
    one = found(["toy a: " + _text(0, 12), "toy a: x"], _text(0, 7), _text(7, 12))
    assert one.dirty == 0


def test_gpt3_takes_runs_as_long_as_the_task_allows_and_passes_over_common_ones():
    rows = [_text(i, i + 11) for i in range(0, 200, 20)]
    one = found(rows, rows[0], *[rows[1]] * 11, *[rows[2]] * 10, rule=RULES["gpt3"])
    assert one.n == 11
    assert one.dirty_N.tolist() == [True, False, True] + [False] * 7
    assert found([_text(0, 40)] * 3, _text(0, 40), rule=RULES["gpt3"]).n == 13
    assert found([_text(0, 4)] * 3, _text(0, 40), rule=RULES["gpt3"]).n == 8


def test_palm_takes_seventy_per_cent_of_runs_of_eight():
    rows = [_text(0, 17), _text(100, 117)]  # ten runs each
    one = found(rows, _text(0, 14), _text(100, 113), rule=RULES["palm"])
    assert one.share_N.tolist() == [0.7, 0.6]
    assert one.dirty_N.tolist() == [True, False]


def test_free_answers_are_looked_for_and_labels_are_not():
    one = found(["q: " + _text(0, 10)], _text(50, 60), labels=(), target=_text(50, 60))
    assert one.dirty == 1
    long_label = _text(50, 60)
    one = found(["q: " + _text(0, 10)], long_label, labels=("no", long_label), target=long_label)
    assert one.dirty == 0


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        (
            ["mrpc sentence1: A b. sentence2: C d.", "mrpc sentence1: e sentence2: f"],
            [[" A b. ", " C d."], [" e ", " f"]],
        ),
        (["translate English to German: Note: hi", "translate English to German: ho"], [[" Note: hi"], [" ho"]]),
        (["cola sentence: one", "cola sentence: two"], [[" one"], [" two"]]),
        (["no template here", "nor here"], [["no template here"], ["nor here"]]),
        (["first words q: one", "second words q: two"], [["first words ", " one"], ["second words ", " two"]]),
        (["wsc: the *it* fell"], [["", " the *it* fell"]]),
    ],
)
def test_fields_are_what_the_template_leaves(inputs: list[str], wanted: list[list[str]]):
    task, rows = toy(*inputs)
    assert fields(task, rows) == wanted


def test_several_tasks_share_one_reading_of_the_corpus():
    read = []

    def pages() -> Iterator[Page]:
        for i in range(3):
            read.append(i)
            yield Page(_text(0, 30), str(i))

    found = contamination([toy(_text(0, 20)), toy(_text(10, 21)), toy(_text(300, 330))], pages(), RULES["gpt3"])
    assert read == [0, 1, 2]
    assert [(one.n, one.dirty) for one in found] == [(13, 1), (11, 1), (13, 0)]


def test_nothing_of_the_corpus_is_held():
    """60 MB of documents, of which every tenth is in the rows: a few megabytes at most while they go by."""
    text = " ".join(WORDS)  # warm: tables of characters, compiled loops
    found([text], text)
    chunk = " ".join(WORDS[:300]) + " "

    def pages() -> Iterator[Page]:
        for i in range(300):
            yield Page((chunk if i % 10 == 0 else f"other{i} " * 250) * 80, f"page {i}")

    tracemalloc.start()
    (one,) = contamination([toy(chunk)], pages(), ANY)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert one.dirty == 1
    assert peak < 8e6


def test_what_cannot_be_is_told():
    with pytest.raises(UserError, match="corpus: found no document"):
        found(["a"])
    task, _ = toy("a")
    with pytest.raises(UserError, match="task toy/rows: found no rows"):
        contamination([(task, [])], [Page("a")], ANY)
    assert found(["", "\u2028", "!!!"], "", _text(0, 20)).short == 3
