"""How far off the plan is: a probe of now beside what the stages of a finished study took.

    python bench/plan_error.py study-laptop [--workers 2] [--seconds 20]

The stages are planned as if none of them were there. Processor seconds are compared with processor seconds (on a GPU,
seconds with seconds), so that others on the machine count little. The first fine-tuning of a checkout compiles loops,
which no probe counts: it is told apart.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from t5study.ground.machine import describe
from t5study.ground.store import Store, read_json
from t5study.study import promised
from t5study.study.asked import Asked
from t5study.study.engine import Engine
from t5study.study.estimate import clock_here, estimate
from t5study.study.question import ask
from t5study.study.runner import chosen_tables, experiments_of
from t5study.study.search import replay
from t5study.study.stages import COST, has, needed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    asked = read_json(args.study / "study.json")
    question = ask(Asked(asked["scale"], asked["text"], asked["tasks"], asked["metric"]))
    store = Store(args.study / "store")
    tables = ",".join(asked["tables"])
    experiments = experiments_of(chosen_tables(tables), question.scale.seeds) if tables else []
    experiments += replay(question, store, lambda stage: None).experiments if asked["rounds"] else []
    stages = needed(stage for one in experiments for stage in question.stages(one))
    stages = {name: stage for name, stage in stages.items() if has(store, stage)}
    engine = Engine(workers=args.workers)
    machine, workers = engine.machine, engine.size
    with tempfile.TemporaryDirectory() as folder:
        out, nothing = Path(folder), Store(Path(folder) / "nothing")
        clock = clock_here(nothing, stages.values(), machine, workers, args.seconds)
        promised.write(out, nothing, stages, clock, estimate(stages, stages, clock, workers), describe(), workers)
        (out / "store").symlink_to(store.root.resolve(), target_is_directory=True)
        print(f"{describe()}; {clock.source}, {clock.busy:.2f} times as long as on a quiet machine")
        for one in promised.kept(out):
            print(one.line())
        print("\nfurthest off:")
        costs = {name: read_json(store.root / name / COST) for name in stages}
        took = {name: cost.get(clock.measure, cost["seconds"]) for name, cost in costs.items()}
        off = {name: clock.seconds(stage) / took[name] - 1 for name, stage in stages.items()}
        for name in sorted(off, key=lambda name: -abs(off[name]) * took[name])[:8]:
            seconds = clock.seconds(stages[name])
            print(f"{stages[name].label}: {seconds:.1f} s, took {took[name]:.1f} s, {off[name]:+.0%}")


if __name__ == "__main__":
    main()
