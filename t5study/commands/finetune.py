"""The command train finetune: on own tasks, on a benchmark as the paper does it, or on everything at once."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5study.commands.asked import ALL, machine_of, needs, words_of
from t5study.commands.train import carry_out, rate_of, run_of
from t5study.ground.errors import Missing, UserError

if TYPE_CHECKING:
    from t5study.feed.named import Mixing
    from t5study.feed.sources import Source
    from t5study.tasks.benchmarks import Benchmark
    from t5study.tasks.task import Task

OWN_LENGTHS = (128, 64)  # source and target tokens of a row, where no benchmark says otherwise


@dataclass(frozen=True)
class Chosen:
    """trained, scored: tasks, by which of their splits have rows. benchmark: if it is one and nothing else. notes: what
    is not official about them, a line each."""

    trained: tuple[Task, ...]
    scored: tuple[Task, ...]
    benchmark: Benchmark | None
    notes: tuple[str, ...]


def finetune(args: argparse.Namespace) -> None:
    needs(args, "checkpoint", "task", "out")
    from t5study.evaluate.scoring import evaluate
    from t5study.feed.mixing import Mixture
    from t5study.feed.stream import Stream
    from t5study.ground.machine import rank_here
    from t5study.model import released
    from t5study.tasks.splits import first
    from t5study.train import tuning
    from t5study.train.best import keep_best
    from t5study.train.optim import Constant

    machine = machine_of(args)
    chosen = chosen_tasks(args)
    first_rank = rank_here()[0] == 0
    for note in chosen.notes if first_rank else ():
        print(f"t5study: {note}", file=sys.stderr)
    how = tuning.parse(args.tuning)
    model, shape = released.load_released(args.checkpoint)
    vocab = released.load_vocab(args.checkpoint, shape, args.vocab)
    model = tuning.begin(how, model, args.seed)
    init = released.digest(args.checkpoint)
    mixing = mixing_of(args, chosen)
    _set_lengths(args, chosen.benchmark)
    lengths = {"source_length": args.source_length, "target_length": args.target_length}
    sources, text = _sources(args, chosen, vocab)
    tasks = list({task.name: task for task in (*chosen.trained, *chosen.scored)}.values())
    # Which of them are trained on is told where that is not all: so that runs from before are found again.
    part = [tuple(task.name for task in chosen.trained)] * (len(chosen.trained) < len(tasks))
    run = run_of(
        args,
        shape=model.shape,
        architecture=model.architecture,
        target_length=args.target_length,
        schedule=Constant(rate_of(args, "finetune")),
        data=(tuple(task.value for task in tasks), mixing, vocab.digest, *part, *text),
        init=init,
        evaluate_every=args.evaluate_every,
        tuning=how,
    )
    rates = mixing.rates([len(source) for source in sources.values()], list(sources))
    names = list(sources) if len(sources) > 1 else []
    mixture = Mixture(list(sources.values()), rates, args.seed, names)

    def judge(step: int, model: Any) -> dict[str, Any]:
        found = {}
        for task in chosen.scored:
            rows = first(task.evaluation_rows, args.evaluation_rows)
            found[task.name] = evaluate(model, vocab, task, rows, **lengths)
        card: dict[str, Any] = {"title": f"T5, fine-tuned, step {step:,}", "started_from": f"xxh3 {init}"}
        keep_best(
            args.out,
            step,
            {name: one.value for name, one in found.items()},
            lambda folder: released.save_released(model, folder, vocab_path=vocab.path, **card),
        )
        return {name: one.summary() for name, one in found.items()}

    told = chosen.benchmark.name if chosen.benchmark else ", ".join(sources)
    carry_out(
        args,
        run,
        machine,
        lambda: model,
        Stream(mixture, args.rows, args.source_length, args.target_length),
        vocab.path,
        label=f"finetune {told}",
        evaluate=judge if args.evaluate_every and chosen.scored else None,
        title=f"T5, fine-tuned on {told}",
        tasks=[f"{task.name} ({len(task.rows('train')):,} rows, {task.digest})" for task in chosen.trained],
        **({"mixing": mixing.label} if names else {}),
        started_from=f"xxh3 {init}",
    )
    if first_rank:
        _tell_best(args.out, chosen.benchmark)


# --- which tasks --------------------------------------------------------------------------------------------------


def chosen_tasks(args: argparse.Namespace) -> Chosen:
    """--task's words as tasks: addresses, files, benchmarks, or "all" (the seven benchmarks, less --leave-out).

    A benchmark's own task beside it is in it already. What a benchmark lacks is left out and noted; a task that was
    named has to have training rows. UserError if none has, or two are of one name.
    """
    from t5study.tasks.addresses import find
    from t5study.tasks.benchmarks import BENCHMARKS, find_benchmark
    from t5study.tasks.splits import complete
    from t5study.tasks.task import Task

    words = words_of(args.task)
    gone = find_benchmark(args.leave_out) if args.leave_out else None
    if gone and ALL not in words:
        raise UserError(f"command line: --leave-out: found {args.leave_out} without --task all; leave it out of --task")
    words = [one for word in words for one in (BENCHMARKS if word == ALL else [word])]
    several = [BENCHMARKS[word] for word in dict.fromkeys(words) if word in BENCHMARKS and BENCHMARKS[word] != gone]
    trains = {address for one in several for address, _ in one.training}
    scores = {address for one in several for address in one.tasks}
    named = [word for word in words if word not in BENCHMARKS and word not in trains | scores]
    trained, scored, notes = dict[str, Task](), dict[str, Task](), list[str]()
    for address in (*(address for one in several for address in one.addresses), *named):
        try:
            task = find(address, metric=args.metric, data=args.data)
        except Missing as told:
            if address not in trains | scores:
                raise
            notes.append(f"{address} is left out: {told}")
            continue
        own = address not in trains | scores
        if args.split_missing and (own or address in trains & scores):
            task, note = complete(task)
            notes += [f"{address}: {note}"] * bool(note)
        if task.name in trained or task.name in scored:
            raise UserError(f"command line: --task: found two tasks named {task.name}; rename one of the files")
        if own:
            task.need("train")
        if task.rows("train") and (own or address in trains):
            trained[task.name] = task
        elif address in trains:
            notes.append(f"{address} is not trained on: it has no training rows there")
        if task.rows("validation") and (own or address in scores):
            scored[task.name] = task
        elif address in scores:
            notes.append(f"{address} is not scored: it has no validation rows there")
    if not trained:
        raise UserError(f"command line: --task: found no training rows; {notes[0] if notes else 'give a task'}")
    benchmark = several[0] if len(several) == 1 and not named else None
    return Chosen(tuple(trained.values()), tuple(scored.values()), benchmark, tuple(notes))


# --- how they are mixed -------------------------------------------------------------------------------------------

_MIXING = re.compile(r"(official|proportional|temperature|equal)(?:\(([\d.]+)(?:, *(\d+))?\))?")


def mixing_of(args: argparse.Namespace, chosen: Chosen) -> Mixing:
    """--mixing as a rule: a benchmark's official rates, or by rows. The unlabeled tokens count as --unlabeled-size
    examples; where GLUE and SuperGLUE stand together, RTE counts half in each."""
    from t5study.feed.mixing import Equal, ExamplesProportional, Temperature
    from t5study.feed.multitask import TWICE, UNLABELED
    from t5study.feed.named import Adjusted, Fixed

    text = (args.mixing or ("official" if chosen.benchmark and not args.unlabeled else "proportional")).strip()
    found = _MIXING.fullmatch(text)
    match found.groups() if found else None:
        case ("official", None, None) if chosen.benchmark and not args.unlabeled:
            return Fixed(chosen.benchmark.training)
        case ("proportional", limit, None):
            rule = ExamplesProportional(int(float(limit or 2**19)))
        case ("temperature", str(temperature), limit):
            rule = Temperature(float(temperature), int(limit or 2**21))
        case ("equal", None, None):
            rule = Equal()
        case _:
            more = "official (of one benchmark alone), " if text.startswith("official") else "official, "
            raise UserError(
                f"--mixing: found {text[:60]!r}; give {more}proportional(524288), temperature(2, 2097152) or equal"
            )
    sizes = ((UNLABELED, args.unlabeled_size),) if args.unlabeled else ()
    both = set(TWICE) <= {task.name for task in chosen.trained}
    factors = tuple((name, 0.5) for name in TWICE) if both else ()
    return Adjusted(rule, sizes, factors=factors) if sizes or factors else rule


def _sources(args: argparse.Namespace, chosen: Chosen, vocab: Any) -> tuple[dict[str, Source], tuple[Any, ...]]:
    """The members by name, the unlabeled one last; and what of that one enters the run's fingerprint."""
    from t5study import objectives
    from t5study.corpus.tokens import TokenStore
    from t5study.evaluate.rows import task_source
    from t5study.feed.multitask import UNLABELED
    from t5study.feed.sources import DocumentSource
    from t5study.ground.store import digest_file

    lengths = (args.source_length, args.target_length)
    sources: dict[str, Source] = {task.name: task_source(task, vocab, args.seed, *lengths) for task in chosen.trained}
    if args.unlabeled is None:
        return sources, ()
    objective = objectives.parse(args.objective)
    asked = objective.lengths(args.source_length)
    if asked.targets > args.target_length:
        raise UserError(
            f"--target-length: found {args.target_length}, and {args.objective} asks for {asked.targets} tokens of "
            f"{args.source_length}; give at least as many"
        )
    store = TokenStore.open(args.unlabeled)
    if store.vocab_digest != vocab.digest:
        raise UserError(
            f"{args.unlabeled}: was made with another vocabulary than the model's; make the tokens with that"
        )
    sources[UNLABELED] = DocumentSource(store.tokens, store.offsets, objective, asked, vocab.ids, args.seed)
    files = (digest_file(args.unlabeled / name) for name in ("tokens.npy", "offsets.npy"))
    return sources, (objective, *files)


def _set_lengths(args: argparse.Namespace, benchmark: Benchmark | None) -> None:
    """Row lengths that were not asked for: the benchmark's, or those of own tasks."""
    source, target = (benchmark.source_length, benchmark.target_length) if benchmark else OWN_LENGTHS
    args.source_length = args.source_length or source
    args.target_length = args.target_length or target


# --- what came out ------------------------------------------------------------------------------------------------


def _tell_best(out: Path, benchmark: Benchmark | None) -> None:
    """The best of every task, and the benchmark's average of these where all of its tasks have one."""
    from t5study.train.best import read_best

    best: Mapping[str, Any] = read_best(out)
    for name, one in best.items():
        print(f"best of {name}: {one['value']:.2f} at step {one['step']:,}, {out / one['model']}")
    if benchmark and len(benchmark.tasks) > 1 and all(name in best for name in benchmark.tasks):
        average = benchmark.average({name: best[name]["value"] for name in benchmark.tasks})
        print(f"{benchmark.column} average, each task at its best: {average:.2f}")
