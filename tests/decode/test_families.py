"""Every architecture, activation and kind of table, with adapters and without: decoding with a cache says what the
whole stack says that is run again for every token. In panels, in torch's operators, and with static shapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from decode.plain import Table, plain_search
from little_models import FAMILY, of_family, random_pairs

from t5study.decode.generate import generate
from t5study.decode.methods import Beam, Greedy, Method, Sample
from t5study.decode.scores import target_scores
from t5study.decode.weights import Ready, ready
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, pad_rows
from t5study.model.architectures import Model

PAIRS = random_pairs(5, 20, 1, 384, seed=6)
SOURCE_NS, _ = pad_rows([source for source, _ in PAIRS])
LONGEST = 5


def lively(name: str) -> Model:
    """Whose answers vary and end."""
    model = of_family(name, seed=1)
    with torch.no_grad():
        for layer in model.decoder:
            layer.attention.out *= 5
            layer.feed.wo *= 5
        (model.embedding if model.head is None else model.head)[EOS] *= 5
    return model


def as_static(model: Model | Ready, source_NS: np.ndarray, method: Method) -> list:
    return generate(model, source_NS, LONGEST, method, batch_rows=4, compiled=lambda step: step)


def as_usual(model: Model | Ready, source_NS: np.ndarray, method: Method) -> list:
    return generate(model, source_NS, LONGEST, method, batch_rows=3)


WAYS: dict[str, Callable] = {
    "panels": as_usual,
    "tensors": lambda model, *rest: as_usual(ready(model, tensors=True), *rest),
    "static": as_static,
}


@pytest.mark.parametrize("name", FAMILY)
def test_the_cache_changes_nothing(name: str) -> None:
    model = lively(name)
    greedy, beams = [], []
    for source, _ in PAIRS:
        table = Table(model, source)
        greedy.append(plain_search(table, LONGEST, Beam(1, 0.0), greedy=True))
        beams.append(plain_search(table, LONGEST, Beam(3, 0.6)))
    for way, run in WAYS.items():
        for method, expected in ((Greedy(), greedy), (Beam(3, 0.6), beams)):
            for answer, (score, ids, _) in zip(run(model, SOURCE_NS, method), expected, strict=True):
                assert answer.ids.tolist() == ids, (way, method)
                assert answer.score == pytest.approx(score, rel=1e-4, abs=1e-5), (way, method)


def test_the_models_of_that_test_say_various_things() -> None:
    said = {tuple(a.ids.tolist()) for name in FAMILY for a in as_usual(lively(name), SOURCE_NS, Greedy())}
    assert len(said) > len(FAMILY)
    assert len({len(ids) for ids in said}) > 2


@pytest.mark.parametrize("name", list(FAMILY)[::3])
def test_a_compiler_takes_the_step_as_one_graph(name: str) -> None:
    """Real compilation is slow on a CPU; the backend "eager" traces the graph and runs it as it is."""
    torch.compiler.reset()
    model, graphs, steps = lively(name), [], False

    def backend(graph: torch.fx.GraphModule, _) -> Callable:
        graphs.append(graph)
        return graph.forward

    def compiled(step: Callable) -> Callable:
        return torch.compile(step, backend=backend, fullgraph=True, dynamic=False)

    for method in (Greedy(), Sample(seed=3)):
        expected = as_usual(model, SOURCE_NS[:4], method)
        found = generate(model, SOURCE_NS[:4], LONGEST, method, batch_rows=4, compiled=compiled)
        assert [a.ids.tolist() for a in found] == [a.ids.tolist() for a in expected]
        steps = steps or any(len(answer.ids) for answer in expected)
    assert len(graphs) == steps, "compiled again though no shape has changed"


def test_int8_is_near_and_refused_where_it_is_not() -> None:
    apart = []
    for name in list(FAMILY)[::5]:
        model = lively(name)
        exact = as_usual(model, SOURCE_NS, Greedy())
        rounded = generate(model, SOURCE_NS, LONGEST, precision="int8")
        pairs = zip(exact, rounded, strict=True)
        apart += [abs(a.score - b.score) for a, b in pairs if a.ids.tolist() == b.ids.tolist()]
        assert as_usual(ready(model, "int8"), SOURCE_NS, Greedy())[0].score == pytest.approx(rounded[0].score, rel=1e-5)
    assert len(apart) > 6
    assert 0 < max(apart) < 0.5
    with pytest.raises(UserError, match="precision: found int8"):
        generate(model, SOURCE_NS, LONGEST, precision="int8", compiled=lambda step: step)


def test_scores_of_answers_are_target_scores() -> None:
    for name in list(FAMILY)[::2]:
        model = lively(name)
        answers = as_usual(model, SOURCE_NS, Greedy())
        ended = [i for i, answer in enumerate(answers) if len(answer.ids) < LONGEST - 1]
        if ended:
            target_NT, _ = pad_rows([np.append(answers[i].ids, EOS) for i in ended])
            nats_N, _ = target_scores(model, SOURCE_NS[ended], target_NT)
            for i, nats in zip(ended, nats_N, strict=True):
                if 0 not in answers[i].ids:
                    assert answers[i].score == pytest.approx(-nats, rel=1e-4)
