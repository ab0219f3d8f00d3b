"""Multi-task training as a stage: text and tasks as one mixture, from fresh weights (sections 3.5.2 and 3.5.3).

It ends a run by itself (Table 11) and is then scored at every checkpoint like fine-tuning, each task at its best; or
fine-tuning starts from it (Table 12), and it is not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from t5study.decode.methods import Beam
from t5study.feed.mixing import Rule
from t5study.feed.multitask import TWICE, UNLABELED, UNLIMITED, Final, scaled
from t5study.feed.named import Adjusted
from t5study.ground.errors import UserError
from t5study.ground.fingerprint import fingerprint
from t5study.model.shapes import Shape
from t5study.study.experiment import Mixing, Objective
from t5study.study.material import Chosen, Tokens, Vocabulary
from t5study.study.outcome import best_scores, finish, finished, learnt_and_scored, lengths, summaries, trained
from t5study.study.stages import IF_SET, UNSIGNED, Place, Stage
from t5study.study.training import Start, scoring_work, told, training_flops, training_work
from t5study.train.optim import Adafactor, AdamW, InverseSquareRoot


@dataclass(frozen=True)
class MultiTaskTraining(Start):
    """A model from fresh weights on tasks, and on text where there are tokens (then `objective` says what is asked of
    it). mixing: the paper's rule; its limit counts examples of the official sets (`feed.multitask.scaled`).
    evaluate_every: steps between checkpoints that are scored, 0 if fine-tuning follows. trained, scored: names of the
    tasks that are, where not all are both. beam: as fine-tuning has it. without: the benchmark or task left out,
    and variant: how it departs from the baseline otherwise, both for people."""

    vocabulary: Vocabulary
    tokens: Tokens | None
    objective: Objective | None
    tasks: tuple[Chosen, ...]
    mixing: Mixing
    shape: Shape
    architecture: str
    steps: int
    rows: int
    source_length: int
    target_length: int
    optimizer: Adafactor | AdamW
    schedule: InverseSquareRoot
    dropout: float
    z_loss: float
    seed: int
    save_every: int = field(compare=False, metadata=UNSIGNED)
    evaluate_every: int = field(default=0, metadata=IF_SET)
    evaluation_rows: int | None = field(default=None, metadata=IF_SET)
    trained: tuple[str, ...] = field(default=(), metadata=IF_SET)
    scored: tuple[str, ...] = field(default=(), metadata=IF_SET)
    beam: Beam | None = field(default=None, metadata=IF_SET)
    variant: str = field(default="", compare=False, metadata=UNSIGNED)
    without: str = field(default="", compare=False, metadata=UNSIGNED)
    kind: ClassVar[str] = "multitask"

    @property
    def label(self) -> str:
        return f"train on {self.way}" + told(self.variant, self.seed)

    @property
    def way(self) -> str:
        text = f"{self.objective.label} and " if self.objective else ""
        return f"{text}all tasks{' but ' * bool(self.without)}{self.without}"

    @property
    def start(self) -> None:
        """It starts from fresh weights."""
        return

    @property
    def parents(self) -> tuple[Stage, ...]:
        rows = tuple(dict.fromkeys(task.rows for task in self.tasks))
        return (self.vocabulary, *((self.tokens,) if self.tokens else ()), *rows)

    @property
    def steps_of_training(self) -> int:
        return self.steps

    @property
    def scoring(self) -> float:
        """The part of `work` that is scoring."""
        return scoring_work(self) if self.evaluate_every else 0.0

    @property
    def flops(self) -> int:
        """Of its training."""
        return training_flops(self)

    @property
    def work(self) -> float:
        return training_work(self) + self.scoring

    def build(self, work: Path, place: Place) -> None:
        from t5study.corpus.tokens import TokenStore
        from t5study.evaluate.rows import task_source
        from t5study.feed.mixing import Mixture
        from t5study.feed.sources import DocumentSource, Source
        from t5study.feed.stream import Stream
        from t5study.model import architectures
        from t5study.train.loop import train
        from t5study.train.parallel import ALONE
        from t5study.train.run import TrainRun

        if finished(work):
            return
        vocab = self.vocabulary.load(place.store)
        learnt, tasks = learnt_and_scored(self, place)
        members: dict[str, Source] = {
            task.name: task_source(task, vocab, self.seed, *lengths(self, task)) for task in learnt
        }
        rule = mixing_of(
            self.mixing, [len(source) for source in members.values()], list(members), self.tokens is not None
        )
        if self.tokens and self.objective:
            if UNLABELED in members:
                raise UserError(f"task {UNLABELED}: has the name that the text goes by in a mixture; give it another")
            store = TokenStore.open(place.folder(self.tokens))
            asked = self.objective.lengths(self.source_length)
            members[UNLABELED] = DocumentSource(
                store.tokens, store.offsets, self.objective, asked, vocab.ids, self.seed
            )
        sources, names = list(members.values()), list(members)
        rates = rule.rates([len(source) for source in sources], names)
        stream = Stream(Mixture(sources, rates, self.seed, names), self.rows, self.source_length, self.target_length)
        shape = replace(self.shape, table_rows=vocab.ids.table_rows)
        text = (self.objective, fingerprint(self.tokens)) if self.tokens else ()
        run = TrainRun(
            shape=shape,
            architecture=self.architecture,
            steps=self.steps,
            rows=self.rows,
            source_length=self.source_length,
            target_length=self.target_length,
            optimizer=self.optimizer,
            schedule=self.schedule,
            dropout=self.dropout,
            seed=self.seed,
            save_every=self.save_every,
            data=(*text, fingerprint(self.tasks), self.mixing, fingerprint(self.vocabulary), *self.trained),
            init="fresh",
            z_loss=self.z_loss,
            evaluate_every=self.evaluate_every,
        )
        model = architectures.build(shape, self.seed, self.architecture)

        def score(step: int, model: Any) -> dict[str, Any]:
            return {"tasks": summaries(self, model, step, tasks, vocab, work, place)}

        train(
            run,
            model,
            stream,
            work,
            place.machine,
            label=self.label,
            evaluate=score if self.evaluate_every else None,
            progress=place.progress,
            ranks=place.ranks or ALONE,
        )
        if place.ranks and not place.ranks.first:
            return
        scores = {"tasks": best_scores(work, tasks, self.steps)} if self.evaluate_every else {}
        finish(work, model, vocab, {"mixing": rule.label} | trained(work, model) | scores)


def mixing_of(rule: Mixing, sizes: Sequence[int], names: Sequence[str], text: bool) -> Rule:
    """The paper's rule for the supervised members that are here and, if there is text, for the unlabeled one, which is
    larger than any limit (section 3.5.2) but for the final models. RTE counts half where both benchmarks have it.

    >>> from t5study.feed.mixing import ExamplesProportional
    >>> rule = mixing_of(ExamplesProportional(2**16), [8_551, 67_349], ["glue/cola", "glue/sst2"], text=True)
    >>> rule.rates([8_551, 67_349, 10], ["glue/cola", "glue/sst2", "unlabeled"]).round(3).tolist()
    [0.061, 0.469, 0.469]
    """
    here = scaled(rule, sizes, names)
    factors = tuple((name, 0.5) for name in TWICE) if set(TWICE) <= set(names) else ()
    if isinstance(rule, Final):
        assert isinstance(here, Adjusted)
        return replace(here, factors=factors)
    assert not isinstance(here, Adjusted)
    return Adjusted(here, ((UNLABELED, UNLIMITED),) if text else (), factors=factors)
