"""What a stage of training is scored on and leaves: predictions, scores at the best checkpoints, numbers, weights."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from t5study.decode.methods import Beam
from t5study.ground.journal import read_journal
from t5study.ground.store import write_json
from t5study.model.shapes import Shape
from t5study.study.material import Chosen
from t5study.study.stages import RESULT, Place

if TYPE_CHECKING:
    from t5study.evaluate.evaluation import Evaluation
    from t5study.tasks.task import Task
    from t5study.vocab import Vocab


TEXT_METRICS = ("bleu", "rouge1", "rouge2", "rougeLsum")  # of tasks that section 3.7 answers with beams


class Trains(Protocol):
    """A stage that trains on packed rows."""

    @property
    def shape(self) -> Shape: ...
    @property
    def architecture(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def source_length(self) -> int: ...
    @property
    def target_length(self) -> int: ...


class Scores(Trains, Protocol):
    """One that trains on tasks and is scored on them. trained, scored: names of those that are, () for all.
    beam: how tasks whose metric compares texts are answered, None for greedily."""

    @property
    def tasks(self) -> tuple[Chosen, ...]: ...
    @property
    def trained(self) -> tuple[str, ...]: ...
    @property
    def scored(self) -> tuple[str, ...]: ...
    @property
    def evaluate_every(self) -> int: ...
    @property
    def evaluation_rows(self) -> int | None: ...
    @property
    def beam(self) -> Beam | None: ...


# --- scoring ----------------------------------------------------------------------------------------------------


def learnt_and_scored(stage: Scores, place: Place) -> tuple[list[Task], list[Task]]:
    """The tasks that a stage is trained on, and those that it is scored on, their rows checked."""
    tasks = [task.load(place.store) for task in stage.tasks]
    learnt = [task for task in tasks if not stage.trained or task.name in stage.trained]
    return learnt, [task for task in tasks if not stage.scored or task.name in stage.scored]


def lengths(stage: Scores, task: Task) -> tuple[int, int]:
    """Tokens that a task's rows are trimmed to: the task's, but no more than a packed row holds."""
    return min(task.input_length, stage.source_length), min(task.target_length, stage.target_length)


def summaries(
    stage: Scores, model: Any, step: int, tasks: list[Task], vocab: Vocab, work: Path, place: Place
) -> dict[str, Any]:
    """Scores a model, or several as one, on some tasks at a step; the predictions are kept in the folder `work`."""
    from t5study.evaluate.predictions import about, save_predictions
    from t5study.evaluate.scoring import evaluate
    from t5study.tasks.splits import first

    told = {}
    for k, task in enumerate(tasks):
        place.progress.say(f"scoring {task.column}, {k + 1} of {len(tasks)}")
        rows = first(task.evaluation_rows, stage.evaluation_rows)
        source_length, target_length = lengths(stage, task)
        found = evaluate(
            model,
            vocab,
            task,
            rows,
            source_length=source_length,
            target_length=target_length,
            method=stage.beam if stage.beam and task.primary in TEXT_METRICS else "greedy",
        )
        path = _predictions(work, step, k, task.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_predictions(found, path, about(task))
        told[task.name] = found.summary()
    return told


# --- from evaluations to scores -----------------------------------------------------------------------------------


def best_scores(work: Path, tasks: list[Task], last: int) -> dict[str, Any]:
    """Each task's scores at its best checkpoints. Predictions stay of these and of the last step."""
    scores, steps = _scores(work, [task.name for task in tasks])
    _keep_predictions(work, steps | {last})
    return scores


def _scores(work: Path, names: list[str]) -> tuple[dict[str, Any], set[int]]:
    """Each task at its best checkpoint, by its metric and by its targets' likelihood apart; and the steps of these."""
    from t5study.evaluate.evaluation import best, best_likelihood

    rows = read_journal(work / "evaluations.jsonl")
    scores, steps = {}, set()
    for name in names:
        told = {row["step"]: row["tasks"][name] for row in rows}
        found = {step: _recalled(summary) for step, summary in told.items()}
        by_metric, by_nats = best(found), best_likelihood(found)
        scores[name] = scores_at(told, by_metric, by_nats)
        steps |= {by_metric, by_nats}
    return scores, steps


def scores_at(told: dict[int, dict[str, Any]], by_metric: int, by_nats: int) -> dict[str, Any]:
    """A task's summaries by step -> its scores at one step by its metric, and at one by likelihood."""
    metric, nats = _recalled(told[by_metric]), _recalled(told[by_nats])
    return {
        "metric": _score(metric.value, by_metric, metric.intervals[metric.metric], told[by_metric]),
        "nats": _score(nats.nats_per_token, by_nats, nats.intervals["nats"], told[by_nats]) | {"unreadable": 0},
        "metrics": metric.metrics,
    }


def _recalled(summary: dict[str, Any]) -> Evaluation:
    """An evaluation from what a run wrote of it; its predictions lie in files."""
    from t5study.evaluate.evaluation import Evaluation

    return Evaluation(
        task=summary["task"],
        metric=summary["metric"],
        metrics=summary["metrics"],
        nats_per_token=summary["nats_per_token"],
        intervals={name: (low, high) for name, (low, high) in summary["intervals"].items()},
        predictions=(),
    )


def _score(value: float, step: int, interval: tuple[float, float], summary: dict[str, Any]) -> dict[str, Any]:
    low, high = interval
    counts = {"n": summary["n"], "unreadable": summary["unreadable"]}
    return {"value": value, "step": step, "low": low, "high": high, **counts}


def _predictions(work: Path, step: int, k: int, name: str) -> Path:
    clean = re.sub(r"[^\w.-]+", "-", name).strip(".")[:80]
    return work / "predictions" / f"{step:07d}" / f"{k:02d}-{clean}.parquet"


def _keep_predictions(work: Path, steps: set[int]) -> None:
    for kept in (work / "predictions").iterdir():
        if int(kept.name) not in steps:
            shutil.rmtree(kept)


# --- the end ----------------------------------------------------------------------------------------------------


def trained(work: Path, model: Any) -> dict[str, Any]:
    """What a run came to. trainable: of its parameters, those that the last step moved. examples: of each member of a
    mixture that tells them."""
    rows = read_journal(work / "journal.jsonl")
    examples = {"examples": rows[-1]["examples"]} if "examples" in rows[-1] else {}
    return examples | {
        "first_loss": rows[0]["loss"],
        "last_loss": rows[-1]["loss"],
        "tokens": sum(row["tokens"] for row in rows),
        "target_tokens": sum(row["target_tokens"] for row in rows),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "trainable": rows[-1]["trainable"],
    }


def finish(work: Path, model: Any, vocab: Vocab, result: dict[str, Any]) -> None:
    """Weights and numbers stay; the checkpoints to resume from, optimiser and all, go."""
    from t5study.model import released

    shutil.rmtree(work / "model", ignore_errors=True)  # of a process that died after the last step
    released.save_released(model, work / "model", vocab_path=vocab.path)
    write_json(work / RESULT, result)
    finished(work)


def finished(work: Path) -> bool:
    """Whether a run is done but for tidying up, which is then done: also after a kill in the midst of it."""
    if done := (work / RESULT).is_file():
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
    return done
