"""The embedded corpus: what of a docstring is kept, and the proof that validation stays out of it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from t5study import pydocs
from t5study.corpus import pydocs as corpus
from t5study.corpus.page import Page
from t5study.docstrings import Documented, Parameter, plain
from t5study.ground.fingerprint import fingerprint
from t5study.tasks import pydocs as tasks


def record(module: str, name: str, summary: str, body: str = "", parameters: tuple[Parameter, ...] = ()) -> Documented:
    return Documented(
        "toy", module, name, "function" if name else "module", "(x)" * bool(name), summary, body, parameters
    )


@pytest.fixture
def held_is_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydocs, "split", lambda module: "validation" if module.startswith("held") else "train")


def pages(*records: Documented) -> dict[str, str]:
    return {page.url: page.text for page in corpus.pages_of(records)}


# --- what is kept -----------------------------------------------------------------------------------------------

BODY = """It is taken over the *flattened* array, as in :func:`~toy.average`::

    left = out(1)

and then it goes on.

.. math::
    \\frac{a}{b}

.. note:: This remark is worth keeping.

.. versionadded:: 1.2

Parameters
----------
x : int
    A number.

======  ======
1       2
======  ======

Examples
--------
>>> mean([1, 2])
1.5
"""


def test_a_module_is_a_page_of_prose(held_is_validation):
    found = pages(
        record("a", "", "About the module."), record("a", "mean", "Compute it.", BODY), record("b", "f", "Other.")
    )
    assert found == {
        "pydocs:a": "About the module.\n\n"
        "mean(x)\nCompute it.\nIt is taken over the flattened array, as in toy.average:\nand then it goes on.\n"
        "This remark is worth keeping.\nParameters x : int A number.",
        "pydocs:b": "f(x)\nOther.",
    }


def test_what_was_said_before_is_not_said_again(held_is_validation):
    long = "This paragraph is copied from class to class, all over the package, and it says the same thing each time."
    assert len(long) > 80
    found = pages(record("a", "f", "One.", long), record("b", "g", "Two.", long), record("c", "h", long))
    assert found == {"pydocs:a": f"f(x)\nOne.\n{long}", "pydocs:b": "g(x)\nTwo."}


# --- what is kept out -------------------------------------------------------------------------------------------

SECRET = "The sentence that only validation may know, all of it."
OWN = "A sentence of its own that stands beside the other."


@pytest.mark.parametrize(
    "held",
    [
        record("held", "f", SECRET),
        record("held", "f", "Do.", f"Some more. {SECRET} And more."),
        record("held", "f", "Do.", "", (Parameter("x", "int", "", SECRET),)),
        record("held", "f", "Do.", f"Notes\n-----\n{SECRET.replace(' that', '   that')}"),
        record("held", "f", "Do.", SECRET.replace("only validation", "*only* :obj:`validation`")),
        record("held", "f", "Do.", SECRET[:48] + " went on otherwise."),
    ],
)
def test_a_sentence_of_validation_goes_from_training(held_is_validation, held: Documented):
    others = [
        record("a", "g", SECRET, f"{OWN} {SECRET} {OWN}"),
        record("b", "h", "Short.", f"Wrapped: {SECRET.upper()}"),
        record("c", "", f"Glued{SECRET} {OWN}"),
    ]
    assert pages(*others) != {}
    assert "only" in str(pages(*others))
    found = pages(*others, held)
    assert found == {"pydocs:a": f"g(x)\n{OWN} {OWN}", "pydocs:b": "h(x)\nShort.\nWrapped:", "pydocs:c": OWN}


def test_a_sentence_that_comes_together_by_removing_goes_as_well(held_is_validation):
    first, second = "One of two short ones.", "The other one of the two."
    held = record("held", "f", "Do.", f"{first[:-1]} {second}\n\n{SECRET}")
    (text,) = pages(record("a", "g", "Do.", f"{first[:-1]}\n\n{SECRET}\n\n{second}"), held).values()
    assert f"{first[:-1]} {second}" not in " ".join(text.split())


def test_short_sentences_and_other_endings_stay(held_is_validation):
    held = record("held", "f", "Return a copy.", "It goes without saying, and so it does not.")
    (text,) = pages(record("a", "g", "Return a copy.", "It goes on without saying, and so it does not."), held).values()
    assert text == "g(x)\nReturn a copy.\nIt goes on without saying, and so it does not."


# --- on the packages of this machine ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records() -> tuple[Documented, ...]:
    return pydocs.records()


@pytest.fixture(scope="module")
def here(records: tuple[Documented, ...]) -> list[Page]:
    return list(corpus.here().pages())


def test_two_readers_give_what_one_gives(records: tuple[Documented, ...]):
    by_module: dict[tuple[str, str], list[Documented]] = {}
    for one in records:
        by_module.setdefault((one.package, one.module), []).append(one)
    files = pydocs._files(".py")
    order = {(package, module): None for package, module, _ in files}
    assert list(by_module) == [place for place in order if place in by_module]
    for package, module, path in [*files[3::120], *files[10::120]]:
        assert pydocs._of_file(package, module, path) == by_module.get((package, module), []), path


def test_enough_of_it_from_every_package(records: tuple[Documented, ...], here: list[Page]):
    counts = Counter((one.package, pydocs.split(one.module)) for one in records)
    for package in tasks.PACKAGES:
        assert counts[package, "train"] > 1000
        assert counts[package, "validation"] > 100
    characters = sum(len(page.text) for page in here)
    assert 10_000_000 < characters < 40_000_000
    assert {pydocs.split(page.url.removeprefix("pydocs:")) for page in here if "topics" not in page.url} >= {"train"}
    modules = {one.module for one in records if pydocs.split(one.module) == "validation"}
    assert not modules & {page.url.removeprefix("pydocs:") for page in here}
    assert not [page for page in here if re.search(r"^>>>", page.text, re.M)]


def test_the_value_is_found_without_reading():
    assert fingerprint(corpus.here().value) == fingerprint(corpus.here().value)
    assert dict(corpus.here().value.versions)["numpy"]


_END = re.compile(r"(?<=[.!?:])\s+")


def _long_sentences(text: str):
    """Lower-cased, white space single, 40 characters or more."""
    return (one for one in _END.split(" ".join(text.lower().split())) if len(one) >= 40)


def test_no_long_sentence_of_validation_is_trained_on(records: tuple[Documented, ...], here: list[Page]):
    """Every sentence of every validation record, as written and with marks off, and every sentence of every rendered
    validation row of every task: looked for at every character of every page."""
    asked: set[str] = set()
    held = [one for one in records if pydocs.split(one.module) == "validation"]
    for one in held:
        told = [one.summary, one.body, f"{one.summary} {one.body}", f"{one.name}{one.signature}"]
        told += [*(parameter.text for parameter in one.parameters), *re.split(r"\n\s*\n", one.body)]
        for text in told:
            asked.update(_long_sentences(text), _long_sentences(plain(text)))
    of_records = len(asked)
    for task in tasks.tasks_of(records).values():
        for row in task.rows("validation"):
            asked.update(_long_sentences(row.input), _long_sentences(row.target))
    assert of_records > 20_000
    assert len(asked) > of_records + 500

    trained = "\n".join(" ".join(page.text.lower().split()) for page in here)
    heads: dict[str, list[str]] = {}
    for sentence in asked:
        heads.setdefault(sentence[:16], []).append(sentence)
    found, close = [], 0
    for i in range(len(trained)):
        if (head := trained[i : i + 16]) in heads:
            close += 1
            found += [sentence for sentence in heads[head] if trained.startswith(sentence, i)]
    assert close > 1000  # the search does look where likenesses are
    assert found == []
