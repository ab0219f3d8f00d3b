"""Invented files of SQuAD, CNN/Daily Mail and WMT, laid out as the real ones are, for tests that always run."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

CLOCK = 'Ann\'s first clock, of 1901 (a gift), was red.\nIt rang 24\u201310 times\u00a0-- "loudly"!'
STORY = """A clock that nobody winds has rung in York

It rang for   an hour, and the street came out to look.
"I never touched it," said its owner

@highlight

A clock rings in York

@highlight

Nobody winds it!
"""


def qa(name: str, question: str, *answers: str, **more: Any) -> dict[str, Any]:
    """A question of SQuAD's layout. Answers that the paragraph has not begin at 0."""
    told = [{"text": answer, "answer_start": max(CLOCK.find(answer), 0)} for answer in answers]
    return {"id": name, "question": question, "answers": told, **more}


def squad_file(file: Path, *questions: dict[str, Any], context: str = CLOCK) -> Path:
    """A file of SQuAD's layout with one paragraph, packed if its name says so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    found = {"version": "1.1", "data": [{"title": "Clocks", "paragraphs": [{"context": context, "qas": questions}]}]}
    with (gzip.open if file.suffix == ".gz" else open)(file, "wt", encoding="utf-8") as out:
        json.dump(found, out)
    return file


def squad(data: Path) -> Path:
    """squad/ with a training file and a packed part of a validation file."""
    squad_file(data / "squad" / "train-v1.1.json", qa("t1", "Whose clock was it?", "Ann"))
    squad_file(
        data / "squad" / "dev-v1.1.part.json.gz",
        qa("d1", "What  was red?", "Ann's first clock", "clock", "Ann's first clock"),
        qa("d2", "How often did it ring?", "24\u201310 times"),
    )
    return data


def squad2(data: Path) -> Path:
    """squad/ of version 2.0 beside nothing else."""
    squad_file(data / "squad" / "train-v2.0.json", qa("t1", "Whose clock was it?", "Ann", is_impossible=False))
    squad_file(
        data / "squad" / "dev-v2.0.json",
        qa("d1", "What was red?", "clock", is_impossible=False),
        qa("d2", "Who was blue?", is_impossible=True, plausible_answers=[{"text": "Ann", "answer_start": 0}]),
    )
    return data


def cnndm(data: Path) -> Path:
    """cnn_dailymail/ as CSV, with the nameless first column that some copies have."""
    folder = data / "cnn_dailymail"
    folder.mkdir(parents=True)
    (folder / "train.csv").write_text(
        ',id,article,highlights\n0,aa1,"A clock rang ,\t in  ""York"" . It was late .","Clock rings .\nIt is late ."\n',
        encoding="utf-8",
    )
    (folder / "validation.csv").write_text(
        "id,article,highlights\nbb1,No stop here,A line\nbb2,  ,Nothing was written\n", encoding="utf-8"
    )
    return data


def stories(data: Path) -> Path:
    """cnn_dailymail/ as the original story files with their lists."""
    folder = data / "cnn_dailymail"
    for split, address in (("train", "http://a.example/1"), ("val", "http://b.example/2")):
        name = hashlib.sha1(address.encode()).hexdigest()
        place = folder / ("cnn" if split == "train" else "dailymail") / "stories"
        place.mkdir(parents=True)
        (place / f"{name}.story").write_text(STORY, encoding="utf-8")
        (folder / f"all_{split}.txt").write_text(address + "\n", encoding="utf-8")
    return data


def lines(file: Path, *texts: str) -> Path:
    """A text file, packed if its name says so."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if file.suffix == ".gz" else open)(file, "wt", encoding="utf-8") as out:
        out.write("".join(f"{text}\n" for text in texts))
    return file


def sgm(file: Path, kind: str, *texts: str) -> Path:
    """A file of WMT's SGM layout."""
    segments = [f'<seg id="{i}">{text}</seg>' for i, text in enumerate(texts, start=1)]
    return lines(
        file, f'<{kind} setid="s" srclang="any">', '<doc docid="d">', "<p>", *segments, "</p>", f"</doc></{kind}>"
    )


def wmt(data: Path) -> Path:
    """translation/ with English and German of every layout: training text, plain text, SGM, two references, outputs."""
    root = data / "translation"
    for language, text in (("en", "the red clock"), ("de", "die rote Uhr")):
        lines(root / "news" / f"europarl-v7.de-en.{language}", text, "", text)
        lines(root / "small" / f"train.{language}.gz", f"{text} .")
        lines(root / "small" / f"val.{language}.gz", f"{text}  ?")
    lines(root / "new" / "newstest2013.part.tok.en", "it rang , late")
    lines(root / "new" / "newstest2013.part.de", "es l\u00e4utete\u2028sp\u00e4t ")
    sgm(root / "dev" / "newstest2014-deen-src.en.sgm", "srcset", "Tom &amp; Ann", "a \n clock")
    sgm(root / "dev" / "newstest2014-deen-ref.de.sgm", "refset", "Tom &amp; Anna", "eine Uhr")
    lines(root / "general" / "generaltest2022.en-de.src.en", "who?")
    for name, text in (("ref.A", "wer?"), ("ref.B", "wer denn?"), ("hyp.Online-A", "was?")):
        lines(root / "general" / f"generaltest2022.en-de.{name}.de", text)
    return data
