"""The pronoun form of WSC, DPR and WNLI, with invented sentences. On the 670 real WSC texts and the 804 real WNLI pairs
the three functions gave what t5's own functions give (run side by side once, outside the project)."""

from __future__ import annotations

import pytest

from t5study.tasks.pronouns import NoPronoun, convert_wnli, mark_dpr, mark_wsc, mend_span, stands_in

JUG = "I filled the jug from the pail until it was full, for it was dry."


def test_wsc_marks_the_word_that_its_index_means() -> None:
    assert mark_wsc(JUG, "it", 8) == JUG.replace("until it", "until *it*")
    assert mark_wsc(JUG, "it", 12) == JUG.replace("for it", "for *it*")
    assert mark_wsc("Ida  saw Eva and she ran .", "she", 5) == "Ida  saw Eva and *she* ran ."  # words between spaces


def test_wsc_with_punctuation_stuck_to_the_pronoun_as_in_t5s_first_sentence() -> None:
    text = 'Tom fed the pony , and the pony trod on him. Ida laughed. "Serves him," she said. '
    assert mark_wsc(text, "him", 14) == (
        'Tom fed the pony , and the pony trod on him. Ida laughed. "Serves *him* ," she said.'
    )


def test_wsc_whose_index_is_one_word_off_as_in_t5s_second_sentence() -> None:
    text = "Ida locked the coin in a box . She might want to use it , but not yet ."
    assert text.split(" ")[12] == "use"
    assert mark_wsc(text, "it", 12) == text.replace(" it ", " *it* ")


def test_wsc_without_the_pronoun_is_told() -> None:
    with pytest.raises(NoPronoun, match="found no word 'she' in the text"):
        mark_wsc(JUG, "she", 8)


def test_spans_are_mended_as_in_wsc_fixed() -> None:
    assert mend_span(JUG, "the jug", 2) == "the jug"
    assert mend_span(JUG, "The jug", 2) == "the jug"
    assert mend_span("The jug fell.", "the jug", 0) == "The jug"
    assert mend_span("He saw the old\tmill burn.", "the mill.", 2) == "the mill."  # no mending makes it stand there
    assert mend_span("He saw the mill burn.", "The mill.", 2) == "the mill"
    assert mend_span("He liked a poem by an old man much.", "a poem\nby an old man", 2) == "a poem by an old man"
    assert mend_span(JUG, "The jug", 99) == "The jug"


def test_a_span_stands_in_a_text_by_its_words() -> None:
    assert stands_in("the jug", JUG)
    assert stands_in("Ida and Eva", "Ida, with Tom, and later Eva came.")
    assert not stands_in("the bucket", JUG)
    assert not stands_in("", JUG)


def test_dpr_marks_the_first_pronoun_alone() -> None:
    assert mark_dpr("Ivo saw him, and he hid when he could.", "he") == "Ivo saw him, and *he* hid when he could."
    assert mark_dpr("The cups broke when Ida dropped them.", "them") == "The cups broke when Ida dropped *them*."
    assert mark_dpr("Cats like milk, but dogs eat it, too.", "it") == "Cats like milk, but dogs eat *it*, too."
    assert mark_dpr("Ivo beat Per as the man was ill.", "the man") == "Ivo beat Per as *the man* was ill."


def test_dpr_leaves_a_pronoun_that_stands_otherwise_as_t5_does() -> None:
    for sentence in ("Ida called Eva before she's gone.", "She saw Eva."):
        assert mark_dpr(sentence, "she") == sentence
    with pytest.raises(NoPronoun, match="found no 'they' in the sentence"):
        mark_dpr("Ida called Eva.", "they")


@pytest.mark.parametrize(
    ("premise", "hypothesis", "marked", "noun"),
    [
        # t5's own example, with other words
        (
            "The owl ate the mouse. It was loud.",
            "The mouse was loud.",
            "The owl ate the mouse. *It* was loud.",
            "The mouse",
        ),
        # the noun in the middle, between words that agree on both sides
        (
            "Ida told Eva that she had won.",
            "Ida told Eva that Eva had won.",
            "Ida told Eva that *she* had won.",
            "Eva",
        ),
        # at the end, and the mark at the word's end set apart
        (
            "Tom looked for the cat but never saw it.",
            "Tom never saw the cat.",
            "Tom looked for the cat but never saw *it* .",
            "the cat",
        ),
        # a possessive loses its ending
        ("Ida lent Eva her pen.", "Ida lent Eva Ida's pen.", "Ida lent Eva *her* pen.", "Ida"),
        (
            "The twins wrote to the aunts in their hats.",
            "The aunts' hats.",
            "The twins wrote to the aunts in *their* hats.",
            "The aunts",
        ),
        # what was found begins with the hypothesis: its last article is the noun's
        (
            "The hen chased the cat until it hid.",
            "The hen chased the cat until the cat hid.",
            "The hen chased the cat until *it* hid.",
            "the cat",
        ),
        # of two pronouns that around which more words agree
        ("He saw the tree and it fell down.", "The tree fell down.", "He saw the tree and *it* fell down.", "The tree"),
        # nothing around it agrees: no noun is found
        (
            "There was a hole. You saw the sea through it.",
            "You saw the sea over the wall.",
            "There was a hole. You saw the sea through *it* .",
            "",
        ),
    ],
)
def test_wnli_becomes_the_pronoun_form(premise: str, hypothesis: str, marked: str, noun: str) -> None:
    assert convert_wnli(premise, hypothesis) == (marked, noun)


def test_wnli_without_a_pronoun_is_told() -> None:
    with pytest.raises(NoPronoun, match="found none of he, her, him, his, it, she, their, them, they in the sentence"):
        convert_wnli("The owl ate the mouse.", "The owl ate.")
