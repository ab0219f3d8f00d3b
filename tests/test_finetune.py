"""Fine-tuning on the paper's benchmarks from the command line: members, rates, lengths, the best of every task kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invented_benchmarks import official
from invented_texts import squad

from t5study.__main__ import main, parse
from t5study.commands.asked import addresses_of
from t5study.commands.finetune import chosen_tasks, mixing_of
from t5study.commands.study import _asked
from t5study.feed.mixing import ExamplesProportional, Temperature
from t5study.feed.named import Adjusted, Fixed
from t5study.ground.errors import UserError
from t5study.ground.journal import read_journal
from t5study.model import architectures
from t5study.model.released import load_released, save_released
from t5study.model.shapes import Shape
from t5study.tasks.benchmarks import BENCHMARKS, GLUE, SUPERGLUE
from t5study.train.best import keep_best, read_best
from t5study.vocab import Vocab, train_vocab


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return squad(official(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    words = [f"word{i} of the little text that number {i * 7} is in" for i in range(200)]
    train_vocab(words, 120, folder / "spiece.model")
    vocab = Vocab.load(folder / "spiece.model")
    model = architectures.build(Shape(32, 64, 16, 2, 1, 1, vocab.ids.table_rows), 0)
    save_released(model, folder / "tiny", vocab_path=folder / "spiece.model")
    return folder / "tiny"


def asked(*words: str | Path):
    return parse(["train", "finetune", *map(str, words)])


def test_a_benchmark_is_its_members_at_the_official_rates(data: Path):
    args = asked("--task", "superglue", "--data", data)
    chosen = chosen_tasks(args)
    assert [task.name for task in chosen.trained] == [*SUPERGLUE.tasks, "superglue/dpr"]
    assert [task.name for task in chosen.scored] == list(SUPERGLUE.tasks)  # DPR is not
    assert mixing_of(args, chosen) == Fixed(SUPERGLUE.training)
    assert chosen.notes == ()


@pytest.mark.parametrize(
    "words",
    [
        ("superglue/boolq,squad", "superglue/cb"),
        ("superglue/boolq", "squad", "superglue/cb"),
        (" superglue/boolq, squad ,superglue/cb,",),
        ("superglue/boolq", "--task", "squad,superglue/cb", "superglue/boolq"),
    ],
)
def test_words_are_split_as_those_of_evaluate_and_of_a_study(data: Path, words: tuple[str, ...]):
    args = asked("--task", *words, "--data", data)
    same = ["superglue/boolq", "squad/v1", "superglue/cb"]
    assert addresses_of(args.task) == same
    assert {task.name for task in chosen_tasks(args).trained} == set(same)
    assert _asked(parse(["study", "plan", "--task", *words])).tasks == ("superglue/boolq", "squad", "superglue/cb")


def test_a_benchmark_has_its_tasks_already_and_all_is_every_benchmark(data: Path):
    args = asked("--task", "superglue/cb", "superglue,", "--data", data)
    assert [task.name for task in chosen_tasks(args).trained] == [*SUPERGLUE.tasks, "superglue/dpr"]
    assert mixing_of(args, chosen_tasks(args)) == Fixed(SUPERGLUE.training)
    every = addresses_of(["all"])
    assert every == [address for one in BENCHMARKS.values() for address in one.tasks]
    with pytest.raises(UserError, match="--task: found no task; give addresses, files or benchmarks"):
        chosen_tasks(asked("--task", ",", "--data", data))


def test_what_a_benchmark_lacks_is_left_out_and_said(data: Path, tmp_path: Path):
    (tmp_path / "glue").mkdir()
    for name in ("CoLA", "SST-2", "RTE"):
        (tmp_path / "glue" / name).symlink_to(data / "glue" / name)
    chosen = chosen_tasks(asked("--task", "glue", "--data", tmp_path))
    assert [task.name for task in chosen.trained] == ["glue/cola", "glue/sst2", "glue/rte"]
    assert len(chosen.notes) == 6
    assert chosen.notes[0].startswith("glue/mrpc is left out: ")
    with pytest.raises(UserError, match="found no folder glue/MRPC"):
        chosen_tasks(asked("--task", "glue/mrpc", "--data", tmp_path))
    with pytest.raises(UserError, match="glue/mnli_mismatched: found no train rows"):
        chosen_tasks(asked("--task", "glue/mnli_mismatched", "--data", data))


def test_several_are_mixed_by_their_rows_and_rte_counts_half_in_each(data: Path):
    args = asked("--task", "glue", "superglue", "squad", "--data", data)
    mixing = mixing_of(args, chosen_tasks(args))
    assert isinstance(mixing, Adjusted)
    assert mixing.rule == ExamplesProportional(2**19)
    assert dict(mixing.factors) == {"glue/rte": 0.5, "superglue/rte": 0.5}
    args = asked("--task", "glue", "--data", data, "--mixing", "temperature(2)")
    assert mixing_of(args, chosen_tasks(args)) == Temperature(2, 2**21)
    args = asked("--task", "squad", "glue/cola", "--data", data, "--mixing", "official")
    with pytest.raises(UserError, match="--mixing: found 'official'; give official .of one benchmark alone."):
        mixing_of(args, chosen_tasks(args))


def test_leaving_one_out_of_all(data: Path):
    with pytest.raises(UserError, match="--leave-out: found glue without --task all"):
        chosen_tasks(asked("--task", "squad", "--leave-out", "glue", "--data", data))
    chosen = chosen_tasks(asked("--task", "all", "--leave-out", "glue", "--data", data))
    assert {task.name.partition("/")[0] for task in chosen.trained} == {"superglue", "squad"}


def test_a_benchmark_is_fine_tuned_on_and_the_best_of_every_task_is_kept(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [
        "train",
        "finetune",
        "--checkpoint",
        checkpoint,
        "--task",
        "glue",
        "--data",
        data,
        "--out",
        tmp_path / "run",
    ]
    words += ["--steps", 4, "--rows", 2, "--evaluate-every", 2, "--evaluation-rows", 3, "--target-length", 16]
    assert main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    assert "GLUE average, each task at its best: " in out
    assert "examples: glue/cola" in err
    assert "asked)" in err
    best = read_best(tmp_path / "run")
    assert set(best) == set(GLUE.tasks)
    for name, one in best.items():
        assert f"best of {name}: {one['value']:.2f} at step {one['step']}" in out
        load_released(tmp_path / "run" / one["model"])
    kept = {path.name for path in (tmp_path / "run" / "best").iterdir()}
    assert kept == {Path(one["model"]).name for one in best.values()}
    rows = read_journal(tmp_path / "run" / "journal.jsonl")
    assert [set(row) - set(rows[0]) for row in rows] == [set(), set(), set(), {"examples"}]
    assert set(rows[-1]["examples"]) == {name for name, _ in GLUE.training}
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["examples"] == rows[-1]["examples"]
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "512" in json.dumps(run)  # the benchmark's source length, as none was asked for


def test_the_best_is_each_tasks_own_and_nothing_else_is_kept(tmp_path: Path):
    """Three evaluations, told as a run tells them: a row is written after what is kept."""

    def save(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")

    told = {10: {"a": 1.0, "b": 5.0}, 20: {"a": 3.0, "b": 4.0}, 30: {"a": 3.0, "b": 4.5}}
    kept = []
    for step, values in told.items():
        keep_best(tmp_path, step, values, save)
        kept.append(sorted(path.name for path in (tmp_path / "best").iterdir()))
        row = {name: {"metric": "accuracy", "metrics": {"accuracy": value}} for name, value in values.items()}
        with open(tmp_path / "evaluations.jsonl", "a") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")
    assert kept == [["0000010"], ["0000010", "0000020"], ["0000010", "0000020"]]
    assert read_best(tmp_path) == {
        "a": {"step": 20, "value": 3.0, "model": "best/0000020"},
        "b": {"step": 10, "value": 5.0, "model": "best/0000010"},
    }
    keep_best(tmp_path, 30, told[30], save)  # as after an interruption: the same again
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == ["0000010", "0000020"]


def test_text_stands_in_the_mixture_as_one_more_member(data: Path, checkpoint: Path, tmp_path: Path, capsys):
    (tmp_path / "text.txt").write_text("\n\n".join(f"word{i} of the little text is in it" for i in range(300)))
    run = [str(word) for word in ("corpus", "build", "--text", tmp_path / "text.txt", "--out", tmp_path / "corpus")]
    assert main(run) == 0
    words = ["corpus", "tokens", "--corpus", tmp_path / "corpus", "--vocab", checkpoint / "spiece.model"]
    assert main([str(word) for word in (*words, "--out", tmp_path / "tokens")]) == 0
    tune = [
        "train",
        "finetune",
        "--checkpoint",
        checkpoint,
        "--task",
        "squad",
        "--data",
        data,
        "--steps",
        3,
        "--rows",
        2,
    ]
    tune += ["--unlabeled", tmp_path / "tokens", "--unlabeled-size", 3, "--mixing", "proportional(2)"]
    tune += ["--source-length", 32, "--target-length", 32, "--out", tmp_path / "run"]
    assert main([str(word) for word in tune]) == 0
    assert "unlabeled" in capsys.readouterr().err
    examples = json.loads((tmp_path / "run" / "summary.json").read_text())["examples"]
    assert list(examples) == ["squad/v1", "unlabeled"]
    one, text = examples.values()  # one question, and text that counts as three examples, of which the limit leaves two
    assert abs(text - 2 * one) <= 3
    card = json.loads((tmp_path / "run" / "model" / "manifest.json").read_text())["card"]
    assert card["mixing"] == "examples-proportional, K = 2^1, unlabeled counted as 3"
    short = [str(word) if word != 32 else "4" for word in tune[:-4]]
    assert main([*short, "--source-length", "32", "--target-length", "4", "--out", str(tmp_path / "other")]) == 2
    assert "--target-length: found 4, and " in capsys.readouterr().err
