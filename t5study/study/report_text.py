"""The report's words: what was asked, what came out, what cannot be told, how it differs from the paper.

Every function gives plain text, made from a study's numbers; nothing here knows HTML or Markdown.
"""

from __future__ import annotations

from collections.abc import Sequence

from t5study.ground.journal import duration
from t5study.study.findings import (
    BETTER,
    SIGNAL,
    SURE,
    WORSE,
    Agreement,
    ColumnOrder,
    Judged,
    Line,
    baseline_runs,
    line,
    model_size,
    variants,
)
from t5study.study.ranks import RankAgreement
from t5study.study.report_input import Round, Study
from t5study.study.report_numbers import count, figure, listed, plural, sigmas, signed

PUBLISHED = (
    "Published in later papers, as transcribed. These are of other baselines, sizes and tasks than the paper’s and "
    "ours: they are to be read against one another, and enter no comparison."
)
MARKS = {
    "sure_better": ("▲", "better, and sure"),
    "better": ("△", "better by more than two standard deviations"),
    "noise": ("≈", "cannot be told from the baseline"),
    "worse": ("▽", "worse by more than two standard deviations"),
    "sure_worse": ("▼", "worse, and sure"),
    "baseline": ("◆", "the baseline"),
    "unknown": ("?", "no noise to judge by"),
}


# --- the headline -----------------------------------------------------------------------------------------------


def title(study: Study) -> str:
    return f"What pre-training should hide: a T5 study on {text_name(study)}"


def text_name(study: Study) -> str:
    """What was read: the patterns that were given, or the embedded corpus by what it is."""
    name = str(study.corpus.get("name", "own text"))
    return "Python's documentation" if name == "pydocs" else name


def asked(study: Study) -> str:
    """What was asked, in two sentences."""
    trained = [run for run in study.runs.values() if run.pretrain]
    tried = plural(len({run.experiment.get("objective", run.label) for run in trained}), "objective")
    more = {
        name: len({run.experiment.get(field) for run in trained})
        for field, name in (("architecture", "architectures"), ("tuning", "ways of fine-tuning"))
    }
    compared = [tried, *(f"{n} {name}" for name, n in more.items() if n > 1)]
    size = model_size(study)
    tokens = max((run.tokens.get("pretrain", 0) for run in trained), default=0)
    told = [
        f"Which way of hiding text makes the best pre-training? "
        f"{listed(compared)} {'was' if compared == ['1 objective'] else 'were'} tried: each "
        f"time a model{f' of {count(size)} parameters' if size else ''} was pre-trained"
        f"{f' on {count(tokens)} tokens' if tokens else ''} of {text_name(study)}, then fine-tuned "
        f"on {_tasks(study)}."
    ]
    if study.rounds:
        told.append(
            "The search follows the T5 paper's (Raffel et al., 2020, section 3.3): round by round, "
            "and each round's choice goes on to the next."
        )
    return " ".join(told)


def _tasks(study: Study) -> str:
    if study.benchmarks:
        there = [one.column for one in study.benchmarks if one.groups]
        return f"{plural(len(there), 'benchmark')} of the paper, each alone ({listed(there)})"
    return f"{plural(len(study.tasks), 'task')} ({listed(str(task['column']) for task in study.tasks)})"


def took(study: Study) -> str:
    """How long, on which machine and in what, at which scale. costs.json sums its stages, which went side by side."""
    total, machine = study.costs.get("total_s"), study.costs.get("machine")
    work = f"{duration(total)} of work, summed over its runs" if isinstance(total, int | float) else ""
    told = work or "How long it took was not recorded"
    where = f"on {machine}" if machine else "on a machine that was not recorded"
    return f"Scale: {study.scale_name}. {plural(len(study.runs), 'run')}. {told}, {where}{_precision(study)}."


def _precision(study: Study) -> str:
    """What training multiplied in; "" where the costs do not tell, as those of older studies."""
    found = study.costs.get("precision")
    if not isinstance(found, list) or not found:
        return ""
    if len(found) == 1:
        return f", trained in {found[0]}"
    return f", trained in part in {listed(map(str, found))}: some differences between its runs are of rounding"


def headline(study: Study, agreed: Agreement | None) -> list[tuple[str, str]]:
    """(heading, sentence) in the order of what a reader wants to know first."""
    told = [(f"Round {turn.number}: {turn.title}", round_sentence(study, turn)) for turn in study.rounds]
    told += [("What is signal", signal(study)), ("What pre-training brought", gain_sentence(study))]
    told.append(("What the verdicts rest on", rests_on(study)))
    if agreed:
        told.append(("Beside the paper", agreement_sentence(agreed)))
    return told


def round_sentence(study: Study, turn: Round) -> str:
    """Who won, by how much, or that it is a tie."""
    if turn.winner is None:
        return turn.verdict
    on = f" {turn.goes_on} goes on." if turn.goes_on else ""
    if turn.ties:
        return f"A tie. {turn.winner} is ahead, but {listed(turn.ties)} cannot be told from it.{on}"
    behind = behind_winner(study, turn)
    runners = {label: units for label, units in behind.items() if label != turn.winner and units is not None}
    if not runners:
        return f"{turn.winner} wins; nothing measured stands beside it.{on}"
    second = min(runners, key=lambda label: runners[label])
    return f"{turn.winner} wins; {second}, the next, is {abs(runners[second]):.1f} σ behind.{on}"


def rounds_rule(study: Study) -> str:
    """What decides a round."""
    if study.asked.get("most_seeds"):
        return (
            f"Candidates that cannot be told from the best get further seeds, up to {study.asked['most_seeds']} "
            "(Student, 5 % for a whole round); those left are tied with it."
        )
    return "Whoever lies within two standard deviations (σ) of the best is tied with it; a tie is called a tie."


def behind_winner(study: Study, turn: Round) -> dict[str, float | None]:
    """Each candidate's distance to the winner in the verdict column, in standard deviations; 0 for the winner."""
    column, noise = study.column(study.verdict_column), study.noise.get(study.verdict_column)
    values = {each.label: line(study, each.label, each.runs).cells[column.name].value for each in turn.candidates}
    best = values.get(turn.winner) if turn.winner is not None else None
    if best is None or noise is None or not noise.std:
        return dict.fromkeys(values)
    sign, std = (1 if column.higher_is_better else -1), noise.std
    return {label: None if value is None else sign * (best - value) / std for label, value in values.items()}


def objectives(study: Study) -> list[Line]:
    """The variants that differ in what pre-training hides: all but "no pre-training"."""
    return [each for each in variants(study) if any(study.runs[key].pretrain for key in each.runs)]


def signal(study: Study) -> str:
    """Which variants differ from the baseline, which do not, which cannot be judged."""
    base = baseline_runs(study)
    baseline = study.runs[base[0]].label if base else "the baseline"
    groups = signal_groups(study)
    if not groups:
        return "No variant was measured."
    told = [f"Against the baseline ({baseline}, {plural(len(base), 'run')}), on {study.verdict_column}."]
    return " ".join(told + [f"{said}: {listed(labels)}." for _, said, labels in groups])


def signal_groups(study: Study) -> list[tuple[str, str, list[str]]]:
    """(class, heading, variants with their distance), the largest distance first; no group but "better" and "worse"
    is told where it is empty."""
    cells = [(each.label, each.cells[study.verdict_column]) for each in objectives(study)]
    if not cells:
        return []
    told = []
    for name, said, among in [
        ("better", "Better beyond the noise", BETTER),
        ("worse", "Worse beyond the noise", WORSE),
        ("noise", "Cannot be told from it", {"noise"}),
    ]:
        found = sorted(((label, cell) for label, cell in cells if cell.mark in among), key=lambda one: -_size(one[1]))
        if found or name != "noise":
            told.append((name, said, [_named(label, cell) for label, cell in found]))
    unjudged = [label for label, cell in cells if cell.mark == "unknown" and cell.values]
    missing = [f"{label} ({cell.state})" for label, cell in cells if not cell.values]
    told += [("noise", "Not judged, for want of repeated baselines", unjudged)] if unjudged else []
    return told + ([("failed", "Without a number", missing)] if missing else [])


def _size(cell: Judged) -> float:
    return abs(cell.units or 0.0)


def _named(label: str, cell: Judged) -> str:
    return f"{label} ({sigmas(cell.units)}{', sure' if cell.mark in SURE else ''})"


def gain_sentence(study: Study) -> str:
    """Pre-training over none, on the verdict column and on how many others."""
    if not study.gain:
        return "Not measured: the baseline, or fine-tuning without pre-training, has no number."
    above = [
        column.name for column in study.columns if column.name in study.gain and study.gain[column.name].above_noise
    ]
    below = [name for name in study.gain if name not in above]
    told = f"It stands above its noise on {len(above)} of {plural(len(study.gain), 'column')}"
    told += f"; not on {listed(below)}." if 0 < len(below) <= 6 and above else "."
    found = study.gain.get(study.verdict_column)
    if found:
        column = study.column(study.verdict_column)
        needed = "no noise to judge by" if found.noise is None else f"noise: {figure(found.noise, column)}"
        told = f"The baseline: {signed(found.gain, column)} {column.unit} on {column.name} ({needed}). {told}"
    return f"{told} {chosen_gain(study)}".rstrip()


def chosen_gain(study: Study) -> str:
    """What the rounds' last choice brought over no pre-training; "" if it is the baseline or one has no number."""
    column = study.column(study.verdict_column)
    last = study.rounds[-1] if study.rounds else None
    chosen = next((each for each in last.candidates if each.label == last.goes_on), None) if last else None
    without = tuple(key for key, run in study.runs.items() if not run.pretrain)
    if chosen is None or chosen.runs == baseline_runs(study):
        return ""
    ours, none = (line(study, "", runs).cells[column.name].value for runs in (chosen.runs, without))
    if ours is None or none is None:
        return ""
    gain = ours - none if column.higher_is_better else none - ours
    return f"What the rounds chose ({chosen.label}): {signed(gain, column)} {column.unit} over no pre-training."


def rests_on(study: Study) -> str:
    """Likelihood or metric, and how much the other would have told."""
    column = study.column(study.verdict_column)
    other = study.mean_column("metric" if column.kind == "likelihood" else "likelihood")
    first = (
        f"On the likelihood of the tasks' targets ({column.name}: nats a target token, lower is better), not on the "
        "answers."
        if column.kind == "likelihood"
        else f"On the answers ({column.name}), not on the likelihood of the tasks' targets."
    )
    lines = objectives(study)
    if other is None or not lines:
        return first
    told = [sum(each.cells[name].mark in SIGNAL for each in lines) for name in (column.name, other.name)]
    said = "the answers (mean of the metrics)" if other.kind == "metric" else other.name
    return (
        f"{first} It tells {told[0]} of {plural(len(lines), 'variant')} from the baseline; {said} would tell {told[1]}."
    )


def not_run(study: Study) -> str:
    """What to say of rows without a run; "" if there is none."""
    rows = sum(not row.runs for table in study.tables for row in table.rows)
    if not rows:
        return ""
    why = "the rounds took another way" if study.rounds else "they were not asked for"
    return f"{plural(rows, 'row')} not run, because {why}: `t5study study run` runs them."


def agreement_sentence(found: Agreement) -> str:
    """How our changes lie beside the paper's."""
    told = (
        f"Of {plural(found.compared, 'variant')} that both measured, the paper tells {found.told} from its baseline "
        f"(median column beyond two of its standard deviations). Of these {found.told} go here the same "
        f"way: {found.same}, the opposite way: {found.opposite}, cannot be told: {found.unseen}."
    )
    if found.order is None:
        return f"{told} Their order is not compared: it takes four variants, and unlike changes."
    return (
        f"{told} Their order beside the paper's: {_rank(found.order, found.order.p)} (Kendall's τ-b over "
        f"{found.order.rows} variants; in brackets what our noise leaves of it, 95 %; p: variants in a random order)."
    )


def _rank(found: RankAgreement, p: float) -> str:
    """tau, what noise leaves of it, and p: the given one, which may be corrected.

    >>> _rank(RankAgreement(4, 1.0, 0.0833, 0.33, 1.0), 0.0833), _rank(RankAgreement(9, -0.5, 0.001, None, None), 0.001)
    ('τ +1.00 [+0.33, +1.00], p 0.08', 'τ −0.50, p < 0.01')
    """
    left = f" [{found.low:+.2f}, {found.high:+.2f}]" if found.low is not None else ""
    return f"τ {found.tau:+.2f}{left}, ".replace("-", "−") + (f"p {p:.2f}" if p >= 0.01 else "p < 0.01")


def orders_sentence(found: Sequence[ColumnOrder]) -> str:
    """How far the rows of a table stand in the paper's order; "" where nothing can be compared."""
    if not found:
        return ""
    told = []
    for each in found:
        told.append(
            f"{each.column.name} ({each.column.kind}) against its {each.against}, {each.found.rows} rows: "
            f"{_rank(each.found, each.holm)}"
        )
    corrected = f", corrected for {len(found)} columns (Holm)" if len(found) > 1 else ""
    return (
        "The order of the rows beside the paper's (Kendall's τ-b; in brackets what our noise leaves of it, 95 %; "
        f"p: rows in a random order{corrected}). {'; '.join(told)}."
    )


# --- noise ----------------------------------------------------------------------------------------------------


def noise_notes(study: Study) -> list[str]:
    """What the rule is worth with so few repeated baselines."""
    noise = study.noise.get(study.verdict_column)
    if noise is None or noise.std is None:
        return ["The baseline was run once, so there is no noise to judge by: nothing is bold and nothing is marked."]
    from scipy.special import stdtr

    chance = float(2 * stdtr(noise.runs - 1, -2 / (1 + 1 / noise.runs) ** 0.5))
    return [
        f"σ is the standard deviation of {plural(noise.runs, 'baseline run')} that differ in their seed alone; as in "
        "the paper (section 3.1.3) it is taken for every variant's.",
        f"Bold: within two σ of the best of its column in its table. △ ▽: more than two σ from the baseline. With only "
        f"{plural(noise.runs, 'baseline run')}, one that is no different passes that rule by chance about once in "
        f"{max(1, round(1 / chance))} times; ▲ ▼ (“sure”) are held to once in twenty (Student's distribution).",
        "Intervals are 95 % over examples: how far a score would move with other examples of the same kind. They say "
        "nothing about seeds, which σ is for.",
    ]
