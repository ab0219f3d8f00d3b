"""evaluate, compare, submission and contamination as a person calls them, on benchmark files of our own making."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from evaluation_run import prepare
from shared_data import SHARED

from t5study.__main__ import main
from t5study.commands.asked import addresses_of
from t5study.evaluate.predictions import read_predictions
from t5study.tasks.benchmarks import BENCHMARKS

SENTENCES = [f"The cup fell on plate {i}, and all of the green fish under it ran out to see why." for i in range(12)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("made"))[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GLUE's CoLA and RTE in its own layout."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("CoLA", "RTE"):
        (folder / "glue" / name).mkdir(parents=True)
    rows = [f"x\t{i % 2}\t\t{text}" for i, text in enumerate(SENTENCES)]
    (folder / "glue" / "CoLA" / "train.tsv").write_text("\n".join(rows[:3]) + "\n")
    (folder / "glue" / "CoLA" / "dev.tsv").write_text("\n".join(rows) + "\n")
    rows = [f"{i}\t{text}" for i, text in enumerate(SENTENCES[:4])]
    (folder / "glue" / "CoLA" / "test.tsv").write_text("\n".join(["index\tsentence", *rows]) + "\n")
    rows = [f"{i}\t{text}\tIt ran.\t{'not_' * (i % 2)}entailment" for i, text in enumerate(SENTENCES)]
    for split in ("train", "dev"):
        path = folder / "glue" / "RTE" / f"{split}.tsv"
        path.write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]) + "\n")
    return folder


def _run(*words: Any) -> int:
    return main([str(word) for word in words])


def _told(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    capsys.readouterr()
    assert _run(*words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_words_of_task_are_addresses_files_and_benchmarks(tmp_path: Path):
    assert addresses_of(["glue/cola,glue/rte", "pydocs/package"]) == ["glue/cola", "glue/rte", "pydocs/package"]
    assert addresses_of(["superglue"]) == list(BENCHMARKS["superglue"].tasks)
    assert addresses_of(["glue,squad/v1"]) == [*BENCHMARKS["glue"].tasks, "squad/v1"]
    assert addresses_of(["glue/rte", "glue"])[:2] == ["glue/rte", "glue/cola"], "each once, where it came first"
    assert {"glue/wnli", "glue/ax"} < set(addresses_of(["glue"], "test"))
    comma = tmp_path / "a,b.tsv"
    comma.write_text("")
    assert addresses_of([str(comma)]) == [str(comma)]


def test_from_two_evaluations_to_a_verdict_and_an_archive(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ["evaluate", "--checkpoint", model, "--data", data, "--task", "glue/cola,glue/rte"]
    assert _run(*asked, "--out", tmp_path / "greedy") == 0
    assert _run(*asked, "--out", tmp_path / "rank", "--method", "rank") == 0
    out = capsys.readouterr().out
    assert out.count("glue/cola: matthews 0.0") >= 1
    assert "12 examples, 12 unreadable" in out
    assert "12 examples, 0 unreadable" in out
    ranked = read_predictions(tmp_path / "rank" / "glue-rte.parquet")
    assert all(len(one.choices) == 2 for one in ranked.predictions)

    assert _run("compare", tmp_path / "rank", tmp_path / "greedy", "--out", tmp_path / "verdict.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["glue/cola", "glue/rte"]
    assert "Holm" in lines[1]
    assert "McNemar 6 against 0, p 0.0312" in lines[1] or "McNemar" in lines[1]
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert [one["task"] for one in verdict] == ["glue/cola", "glue/rte"]
    assert all(one["holm"] >= one["numbers"][one["metric"]]["p"] for one in verdict)
    assert verdict[1]["numbers"]["nats"]["difference"] == 0, "the same targets under the same weights"
    one, other = tmp_path / "rank" / "glue-cola.parquet", tmp_path / "greedy" / "glue-rte.parquet"
    assert "has no task that" in _told(capsys, "compare", one, other)
    assert "has no predictions" in _told(capsys, "compare", data, data)

    answers = tmp_path / "answers"
    test = ["evaluate", "--checkpoint", model, "--data", data, "--split", "test", "--method", "rank", "--out", answers]
    assert _run(*test, "--task", "glue/cola") == 0
    assert "4 examples, 0 unreadable; no labels to score with" in capsys.readouterr().out
    archive = tmp_path / "glue.zip"
    told = _told(capsys, "submission", answers, "--site", "glue", "--out", archive)
    assert "found no answers to glue/sst2, glue/mrpc" in told
    assert _run("submission", answers, "--site", "glue", "--out", archive, "--partial") == 0
    assert "CoLA.tsv: 4 rows" in capsys.readouterr().out
    with zipfile.ZipFile(archive) as found:
        lines = found.read("CoLA.tsv").decode().splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == ["0", "1", "2", "3"]
    assert {line.split("\t")[1] for line in lines[1:]} <= {"0", "1"}
    told = _told(capsys, "submission", tmp_path / "greedy", "--site", "glue", "--out", tmp_path / "x.zip", "--partial")
    assert "found answers to validation rows" in told
    assert "found no test rows" in _told(capsys, *test, "--task", "glue/rte")


def test_contamination_and_what_it_does_to_the_score(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    asked = ["--data", data, "--task", "glue/cola,glue/rte"]
    assert _run("evaluate", "--checkpoint", model, *asked, "--method", "rank", "--out", tmp_path / "scores") == 0
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(f"Some text. {SENTENCES[3].upper()} More text.\n\n{SENTENCES[7]}\n")
    report = tmp_path / "report.json"
    words = ["contamination", *asked, "--text", corpus, "--n", 13, "--share", 1, "--out", report]
    assert _run(*words, "--scores", tmp_path / "scores") == 0
    out = capsys.readouterr().out
    assert (
        "glue/cola: 2 of 12 rows (16.7 %) are in the corpus by runs of 13 words; 0 too short to tell; matthews" in out
    )
    assert "on the 10 clean rows" in out
    assert "row" in out
    found = json.loads(report.read_text())
    assert found["corpus"]["files"] == 1
    assert [one["dirty"] for one in found["tasks"]] == [2, 2]
    assert [i for i, row in enumerate(found["tasks"][0]["each"]) if row["dirty"]] == [3, 7]
    assert found["tasks"][0]["scores"]["dirty rows"]["n"] == 2
    built = tmp_path / "built"
    assert _run("corpus", "build", "--text", corpus, "--out", built) == 0
    assert _run("contamination", *asked, "--corpus", built, "--rule", "palm", "--share", 1) == 0
    assert "glue/cola: 2 of 12 rows" in capsys.readouterr().out
    assert "give either --text or --corpus" in _told(capsys, "contamination", *asked)
    assert "has no .parquet file" in _told(capsys, "contamination", *asked, "--corpus", data)
    assert "holds no predictions of" in _told(
        capsys, "contamination", *asked, "--text", corpus, "--scores", tmp_path / "scores" / "glue-rte.parquet"
    )


@pytest.mark.skipif(SHARED is None, reason="the shared data is not on this machine")
def test_the_shared_test_rows_become_the_sites_files(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    asked = ["evaluate", "--checkpoint", model, "--data", SHARED, "--split", "test", "--method", "rank"]
    asked += ["--source-length", 8, "--out", tmp_path / "answers"]
    assert _run(*asked, "--task", "glue/cola,glue/wnli", "--target-length", 4) == 0
    assert "greedy: it has no fixed labels to rank" in capsys.readouterr().out
    assert _run("submission", tmp_path / "answers", "--site", "glue", "--out", tmp_path / "x.zip", "--partial") == 0
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        found = {name: archive.read(name).decode().splitlines() for name in archive.namelist()}
    assert {name: len(lines) for name, lines in found.items()} == {"CoLA.tsv": 1_064, "WNLI.tsv": 147}
    for lines in found.values():
        assert [line.split("\t")[0] for line in lines[1:]] == [str(i) for i in range(len(lines) - 1)]
        assert {line.split("\t")[1] for line in lines[1:]} <= {"0", "1"}
