"""Steps in fixed places, which a GPU records: what they say is what the definition says, for every architecture and
method, whether a step is run as it is or a trace of it is run again; they know nothing that a recording would freeze.

What only a GPU can show is that CUDA records them, and how fast that is.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from decode.plain import Table, plain_search
from decode.test_families import lively
from hypothesis import given, settings
from hypothesis import strategies as st
from little_models import FAMILY, SHAPES, random_pairs, talkative
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from t5study.decode import fixed
from t5study.decode.generate import generate
from t5study.decode.graphs import MOST, Graphs, Step, graphs_on
from t5study.decode.methods import Beam, Greedy, Method, Sample
from t5study.decode.weights import Ready, ready
from t5study.ground.errors import UserError
from t5study.ground.pairs import pad_rows
from t5study.model.architectures import Model, build

METHODS = [Greedy(), Beam(3, 0.6), Sample(temperature=1.2, top_k=50, top_p=0.95, seed=5)]
SOURCE_NS, _ = pad_rows([source for source, _ in random_pairs(7, 20, 1, 384, seed=6)])
LONGEST = 5


class AsItIs:
    """A recorder that runs steps anew each time, from Python."""

    def warm(self, step: Step) -> None:
        step()

    def record(self, step: Step) -> Step:
        return step

    def held(self) -> int:
        return 0


class Traced(AsItIs):
    """A recorder as a GPU's is: it runs a step once to see which operators that calls, on which tensors, and from then
    on calls these and nothing else. Numbers that Python had at that time are in the trace for ever."""

    def __init__(self) -> None:
        self.traces = 0

    def record(self, step: Step) -> Step:
        assert isinstance(step, partial)
        buffers, *rest = step.args
        tensors = all_of(buffers)
        with torch.no_grad():
            kept = [x.clone() for x in tensors]
            trace = make_fx(lambda *_: step.func(buffers, *rest))(*tensors)
            for x, before in zip(tensors, kept, strict=True):
                x.copy_(before)
        self.traces += 1
        return lambda: trace(*tensors)


def all_of(value: object) -> list[Tensor]:
    """Every tensor of a batch's buffers."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [x for one in value for x in all_of(one)]
    if is_dataclass(value) and not isinstance(value, Ready):
        return [x for field in fields(value) for x in all_of(getattr(value, field.name))]
    return []


def recording(model: Model, recorder: AsItIs) -> Ready:
    return replace(ready(model, tensors=True), graphs=Graphs(recorder))


def said(members: Ready | list[Ready], source_NS: np.ndarray, longest: int, method: Method, **how) -> list:
    return [(a.ids.tolist(), a.score) for a in generate(members, source_NS, longest, method, **how)]


def assert_alike(found: list, expected: list) -> None:
    assert [ids for ids, _ in found] == [ids for ids, _ in expected]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_says_what_the_definition_says(name: str) -> None:
    model = lively(name)
    tables = [Table(model, source_S[source_S > 0]) for source_S in SOURCE_NS]
    asked = ((Greedy(), Beam(1, 0.0), True), (Beam(3, 0.6), Beam(3, 0.6), False))
    for recorder in (AsItIs(), Traced())[: 1 + (name in list(FAMILY)[::5])]:  # traces take time
        member = recording(model, recorder)
        for method, how, greedy in asked:
            expected = [plain_search(table, LONGEST, how, greedy) for table in tables]
            for batch_rows in (7, 4):  # the second time as two batches of one shape
                found = said(member, SOURCE_NS, LONGEST, method, batch_rows=batch_rows)
                assert_alike(found, [(ids, score) for score, ids, _ in expected])


@pytest.mark.parametrize(("average", "recorder"), [("logits", AsItIs), ("probabilities", Traced)])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_ensembles_of_several_kinds(method: Method, average: str, recorder: type[AsItIs]) -> None:
    kinds = ("prefix_lm", "shared_encoder_decoder", "language_model")
    models = [lively(f"{kind} relu tied") for kind in kinds]
    expected = said([ready(model, tensors=True) for model in models], SOURCE_NS, 12, method, average=average)
    members = [recording(model, recorder()) for model in models]
    for _ in range(2):
        assert_alike(said(members, SOURCE_NS, 12, method, average=average), expected)


SEEDS = {"v1.0": 0, "v1.1": 1}  # whose answers have all lengths
MODELS = {version: talkative(SHAPES[version], SEEDS[version]) for version in SHAPES}
PLAIN = {version: ready(model, tensors=True) for version, model in MODELS.items()}
KEPT = {version: recording(model, AsItIs()) for version, model in MODELS.items()}  # buffers as others left them
POOL_NS, _ = pad_rows([source for source, _ in random_pairs(40, 100, 1, 384, seed=8)])


@settings(max_examples=40, deadline=None)
@given(
    version=st.sampled_from(list(SHAPES)), method=st.sampled_from([*METHODS, Beam(1, 0.0), Beam(4, 1.5)]),
    rows=st.lists(st.integers(0, len(POOL_NS) - 1), min_size=1, max_size=9), batch_rows=st.integers(1, 9),
    longest=st.sampled_from([1, 2, 3, 7, 8, 9, 10, 15, 16, 17, 18, 31, 32, 33, 40]),
)  # fmt: skip
def test_ragged_batches_of_any_size_and_length(
    version: str, method: Method, rows: list[int], batch_rows: int, longest: int
) -> None:
    """Rows that end early beside those that do not, lengths about those where shapes change, and buffers that batches
    of other shapes have used before."""
    source_NS = POOL_NS[rows]
    expected = said(PLAIN[version], source_NS, longest, method, batch_rows=batch_rows)
    assert_alike(said(KEPT[version], source_NS, longest, method, batch_rows=batch_rows), expected)


def various(method: Method, longest: int, most: int = 1000) -> np.ndarray:
    """Five sources to which v1.1 says answers of various lengths, of at most so many tokens."""
    length_N = np.array([len(ids) for ids, _ in said(PLAIN["v1.1"], POOL_NS, longest, method)])
    order = [row for row in np.argsort(length_N, kind="stable") if length_N[row] <= most]
    return POOL_NS[order][np.linspace(0, len(order) - 1, 5).astype(int)]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_longest_answers_cross_every_width(method: Method) -> None:
    """A trace is run again in each width, and answers go on where the last width ended."""
    source_NS, longest = various(method, 70), 70
    expected = said(PLAIN["v1.1"], source_NS, longest, method)
    assert max(len(ids) for ids, _ in expected) > 64, "no answer is long"
    assert len({len(ids) for ids, _ in expected}) > 2, "answers do not end here and there"
    traced = Traced()
    member = recording(MODELS["v1.1"], traced)
    for _ in range(2):
        assert_alike(said(member, source_NS, longest, method), expected)
    assert traced.traces == 5, "one of the first step, and one of each width: 16, 32, 64, 128"


def test_one_recording_serves_other_rows_lengths_seeds_and_penalties() -> None:
    traced = Traced()
    member, plain = recording(MODELS["v1.0"], traced), PLAIN["v1.0"]
    for how in (Beam(3, 0.6), Beam(3, 1.5), Beam(3, 0.0)):
        assert_alike(said(member, POOL_NS[:4], 14, how), said(plain, POOL_NS[:4], 14, how))
    assert traced.traces == 2
    for seed in (1, 2, 3):
        how = Sample(seed=seed)
        source_NS = POOL_NS[seed : seed + 3]
        assert_alike(said(member, source_NS, 9 + seed, how), said(plain, source_NS, 9 + seed, how))
    assert traced.traces == 4


def test_rows_of_nothing_cost_no_answer() -> None:
    """Five rows are rounded up to eight; those three say nothing, and it is over when the five are."""
    recorder, source_NS = Counting(), various(Greedy(), 64, most=30)
    longest = max(len(ids) for ids, _ in said(PLAIN["v1.1"], source_NS, 64, Greedy()))
    assert 8 < longest < 64
    said(recording(MODELS["v1.1"], recorder), source_NS, 64, Greedy())
    assert longest + 1 <= recorder.steps < longest + 1 + fixed.ASKED_EVERY


class Counting(AsItIs):
    def __init__(self) -> None:
        self.steps = 0

    def warm(self, step: Step) -> None:
        self.steps += 1
        step()

    def record(self, step: Step) -> Step:
        return partial(self.warm, step)


# --- what a recording needs -------------------------------------------------------------------------------------------


def buffers_for(model: Model, method: Method, graphs: Graphs | None = None) -> fixed.Buffers:
    beams = method.beams if isinstance(method, Beam) else 1
    room = fixed.Room(4, beams, 64, 32)
    return fixed.buffers_of(graphs or Graphs(AsItIs()), [ready(model, tensors=True)], room, method)


class NoAnswers(TorchDispatchMode):
    """Fails on an operator whose result the host has to wait for: a number read from a tensor, or a shape that depends
    on what is in one; and on one that makes a tensor of the host's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        asked = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
        if func is torch.ops.aten.index.Tensor:  # whose shape depends on what is in a mask, not on what is in indices
            asked = {index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)}
        assert not asked, f"{func} waits for the device"
        assert "lift_fresh" not in str(func), f"{func} takes numbers of the host's"
        self.called.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def on_meta(value: Any) -> Any:
    """The same with tensors that have a shape and a kind but hold nothing."""
    if isinstance(value, Tensor):
        return value.detach().to("meta")
    if isinstance(value, list | tuple):
        return type(value)(on_meta(one) for one in value)
    if isinstance(value, Model):
        with torch.device("meta"):
            return build(value.shape, 0, value.architecture)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: on_meta(getattr(value, field.name)) for field in fields(value)})
    return value


@pytest.mark.parametrize("name", list(FAMILY)[::3])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_step_asks_the_device_nothing(name: str, method: Method) -> None:
    """No operator of a step has the host wait for it. And on the meta device, whose tensors hold nothing: there a
    number could not be read, and a tensor that the host has made would not fit the others."""
    buffers = buffers_for(lively(name), method)
    for each in (buffers, on_meta(buffers)):
        each.search.start(np.arange(3), 20)
        with NoAnswers() as calls, torch.no_grad():
            fixed.first(each, "logits", 16)
            fixed.step(each, "logits", 16)
            fixed.step(each, "logits", 32)
        assert {"index_copy_", "masked_fill", "bmm"} <= calls.called
    assert not bool(buffers.search.bad_1)
    assert buffers.search.count_1.tolist() == [3]


def test_that_check_can_fail() -> None:
    x = torch.arange(3.0)
    for asks in (lambda: x.sum().item(), lambda: x[x > 1], lambda: bool(x.any()), lambda: torch.tensor([1, 2])):
        with pytest.raises(AssertionError), NoAnswers():
            asks()
    with pytest.raises(RuntimeError):
        torch.empty(3, device="meta").sum().item()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_addresses_and_shapes_stay(method: Method) -> None:
    """From step to step, and from batch to batch; larger batches move them, and all is recorded anew."""
    graphs = Graphs(AsItIs())
    model = MODELS["v1.0"]
    buffers = buffers_for(model, method, graphs)
    before = [(x.data_ptr(), x.shape, x.stride()) for x in all_of(buffers)]
    buffers.search.start(np.arange(3), 20)
    with torch.no_grad():
        fixed.first(buffers, "logits", 16)
        for width in (16, 16, 32):
            fixed.step(buffers, "logits", width)
    again = buffers_for(model, method, graphs)
    for found in (buffers, again):
        assert [(x.data_ptr(), x.shape, x.stride()) for x in all_of(found)] == before
    assert len({pointer for pointer, shape, _ in before if shape.numel()}) == len(
        [1 for _, s, _ in before if s.numel()]
    )


def test_what_is_recorded_is_forgotten_when_it_would_be_wrong() -> None:
    """With other models, other addresses, or too many recordings."""
    ran: list[Hashable] = []
    graphs = Graphs(AsItIs())
    one, other = Thing("one"), Thing("other")

    def run(shapes: Hashable) -> bool:
        """Whether it was recorded before."""
        before = graphs.held().recordings
        graphs.run(shapes, lambda: ran.append(shapes))
        return graphs.held().recordings == before and before > 0

    def recorded(shapes: Hashable) -> None:
        for _ in range(2):
            graphs.run(shapes, lambda: ran.append(shapes))

    with graphs.taken_by([one]):
        small = graphs.buffer("x", (2, 3), torch.float32, torch.device("cpu"))
        recorded("a")
        assert graphs.held().recordings == 1
    with graphs.taken_by([one]):
        assert graphs.buffer("x", (3, 2), torch.float32, torch.device("cpu")).data_ptr() == small.data_ptr()
        assert run("a")
        graphs.buffer("x", (2, 4), torch.float32, torch.device("cpu"))
        assert graphs.held().recordings == 0, "the buffer has moved"
        recorded("a")
    for others in ([other], [one, other], [one]):
        with graphs.taken_by(others):
            assert graphs.held() == replace(graphs.held(), buffers=0, recordings=0)
            recorded("a")
    del one, others
    with graphs.taken_by([Thing("one")]):
        assert graphs.held().recordings == 0, "another that may lie where the first one lay"
        for i in range(MOST + 5):
            recorded(i)
        assert graphs.held().recordings <= MOST + 1
        assert run(MOST + 4)
    assert ran.count("a") == 3 + 2 + 6


@dataclass(eq=False)
class Thing:
    name: str


def test_a_step_runs_once_however_it_runs() -> None:
    """As it is, recorded and run, run again: in this order, and each time once."""
    happened: list[str] = []

    class Telling(AsItIs):
        def warm(self, step: Step) -> None:
            happened.append("warm")
            step()

        def record(self, step: Step) -> Step:
            happened.append("record")
            return lambda: happened.append("replay")

    graphs = Graphs(Telling())
    for _ in range(4):
        graphs.run("shapes", lambda: happened.append("step"))
    assert happened == ["warm", "step", "record", "replay", "replay", "replay"]


@pytest.mark.parametrize(
    ("longest", "source", "places", "rows"),
    [(1, 64, 16, 1), (16, 64, 16, 16), (17, 64, 32, 32), (64, 64, 64, 64), (65, 96, 128, 128), (96, 96, 128, 128),
     (97, 128, 128, 128), (129, 192, 256, 256), (193, 256, 256, 256), (8193, 12_288, 16_384, 16_384)],
)  # fmt: skip
def test_sizes_are_rounded_up_to_few(longest: int, source: int, places: int, rows: int) -> None:
    assert (fixed.round_source(longest), fixed.round_places(longest), fixed.round_rows(longest)) == (
        source,
        places,
        rows,
    )


def test_what_buffers_take_is_told() -> None:
    """By arithmetic: keys and values of the source and of the answers, by layer; the rest is small."""
    member, shape = recording(MODELS["v1.0"], AsItIs()), SHAPES["v1.0"]
    said(member, POOL_NS[:5], 20, Beam(3, 0.6))
    rows, source, places = 8, fixed.round_source(int((POOL_NS[:5] > 0).sum(1).max())), 32
    keys = 2 * shape.heads * shape.d_kv * shape.decoder_layers * 4 * rows * (source + 3 * places)
    assert member.graphs is not None
    held = member.graphs.held()
    assert keys < held.buffers < 1.1 * keys
    assert held.recordings == 2


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_weights_that_are_not_finite(method: Method) -> None:
    model = talkative(SHAPES["v1.0"], seed=0)
    with torch.no_grad():
        model.decoder.layers[0].feed.wo[0, 0] = float("nan")  # type: ignore[union-attr, index]
    with pytest.raises(UserError, match="its weights are not usable"):
        said(recording(model, AsItIs()), SOURCE_NS, 20, method)


def test_bfloat16_as_other_steps_have_it() -> None:
    """Within its width; rounded to it two tokens may be equally likely, and then either is right."""
    with torch.autocast("cpu", torch.bfloat16):
        plain = ready(MODELS["v1.1"], tensors=True)
        assert plain.dtype == torch.bfloat16
        for method in (Greedy(), Beam(3, 0.6)):
            expected = said(plain, POOL_NS, 20, method)
            found = said(replace(plain, graphs=Graphs(AsItIs())), POOL_NS, 20, method)
            alike = [(a, b) for (ids, a), (others, b) in zip(found, expected, strict=True) if ids == others]
            assert len(alike) > 0.8 * len(POOL_NS)
            np.testing.assert_allclose(*zip(*alike, strict=True), rtol=0.02, atol=0.02)


def test_only_a_gpu_records_and_a_switch_keeps_it_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ready(MODELS["v1.0"]).graphs is None
    assert graphs_on(torch.device("cpu")) is None
    monkeypatch.setenv("T5STUDY_KERNELS", "off")
    assert graphs_on(torch.device("cuda")) is None
    monkeypatch.setenv("T5STUDY_KERNELS", "perhaps")
    with pytest.raises(UserError, match="give on or off"):
        graphs_on(torch.device("cuda"))


def test_a_compiled_step_is_not_recorded_as_well() -> None:
    recorder = Counting()
    answers = generate(recording(MODELS["v1.0"], recorder), POOL_NS[:4], 9, batch_rows=4, compiled=lambda step: step)
    assert recorder.steps == 0
    assert_alike([(a.ids.tolist(), a.score) for a in answers], said(PLAIN["v1.0"], POOL_NS[:4], 9, Greedy()))
