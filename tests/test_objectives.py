"""Objectives, held against the paper's Table 3, the official lengths, and a slow reading of the prose in Python lists.

Chances are tested by chi-square over many rows with fixed seeds: a test that passes once passes always.
"""

from __future__ import annotations

import itertools
from collections import Counter
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from t5study import kernels
from t5study.denoisers import MODES, UL2, Denoiser, MixtureOfDenoisers, Ul2
from t5study.ground.errors import UserError
from t5study.ground.pairs import EOS, Ids, Pair, Pairs
from t5study.ground.seeds import keys
from t5study.objectives import (
    INPUTS,
    TARGETS,
    BertStyle,
    CausalLM,
    Denoising,
    Deshuffle,
    DropTokens,
    Lengths,
    MassStyle,
    Objective,
    PrefixLM,
    ReplaceSpans,
    SpanCorruption,
    hide,
    names,
    parse,
    roomy,
)

IDS = Ids(size=32_100)
ALL: list[Objective] = [
    PrefixLM(),
    CausalLM(),
    Deshuffle(),
    BertStyle(),
    MassStyle(),
    ReplaceSpans(),
    DropTokens(),
    SpanCorruption(),
    SpanCorruption(rate=0.5, mean_span=2),
    Denoising(0.5, None, "unique", "unique", "enough"),
    Ul2(),
    Ul2(modes=False),
]
by_label = pytest.mark.parametrize("objective", ALL, ids=lambda objective: objective.label)
steady = settings(derandomize=True, deadline=None, max_examples=80)


def texts(rows: int, length: int, ids: Ids = IDS) -> np.ndarray:
    """Rows of ordinary ids."""
    return np.random.default_rng(0).integers(3, ids.pieces, (rows, length), dtype=np.int32)


def made(
    objective: Objective, raw_BL: np.ndarray, lengths: Lengths | None = None, ids: Ids = IDS, seed: int = 0
) -> Pairs:
    rows, length = raw_BL.shape
    noise_keys = keys(seed, "noise", np.arange(rows))
    return objective.pairs(raw_BL, np.full(rows, length), noise_keys, ids, lengths or roomy(length))


def hidden(rate: float, mean_span: float | None, rows: int, length: int) -> np.ndarray:
    """Noise masks, bool (rows, length)."""
    noise_BL, length_B = np.zeros((rows, length), np.bool_), np.full(rows, length, np.int32)
    if mean_span is None:
        kernels.iid_noise(noise_BL, length_B, keys(1, "noise", np.arange(rows)), rate)
    else:
        kernels.span_noise(noise_BL, length_B, keys(1, "noise", np.arange(rows)), rate, mean_span)
    return noise_BL


def fair(found: Counter, cells: list, chances: list[float] | None = None) -> None:
    """Fails if counts are not those of these chances (default: all equal), or fall outside these cells."""
    assert set(found) <= set(cells)
    total = sum(found.values())
    expected = [total / len(cells)] * len(cells) if chances is None else [total * chance for chance in chances]
    assert min(expected) >= 5
    assert chisquare([found[cell] for cell in cells], expected).pvalue > 1e-3


# --- lengths ------------------------------------------------------------------------------------------------------

# SEMANTICS.md section 5, input length 512: rate, mean span, raw tokens, targets
CELLS = [line.split() for line in """
    0.10  2 538 82
    0.10  3 548 74
    0.10  5 556 68
    0.10 10 561 63
    0.10  1 511 103
    0.15  2 552 126
    0.15  3 568 114
    0.15  5 581 105
    0.15 10 591 99
    0.15  1 511 155
    0.25  2 584 220
    0.25  3 614 206
    0.25  5 639 193
    0.25 10 660 182
    0.25  1 511 257
    0.50  2 682 512
    0.50  3 766 512
    0.50  5 852 512
    0.50 10 930 512
    0.50  1 510 512
""".strip().splitlines()]  # fmt: skip


@pytest.mark.parametrize(("rate", "span", "raw", "targets"), CELLS)
def test_lengths_are_the_official_ones(rate: str, span: str, raw: str, targets: str):
    assert SpanCorruption(float(rate), float(span)).lengths(512) == Lengths(int(raw), 512, int(targets))


@pytest.mark.parametrize(("span", "raw", "targets"), [(2, 70, 22), (1, 63, 27)])
def test_lengths_are_the_official_checks_too(span: int, raw: int, targets: int):
    assert SpanCorruption(0.2, span).lengths(64) == Lengths(raw, 64, targets)


@pytest.mark.parametrize(("rate", "targets"), [(0.10, 103), (0.15, 192), (0.25, 256), (0.50, 512)])
def test_iid_targets_are_capped_as_in_the_official_configurations(rate: float, targets: int):
    assert ReplaceSpans(rate).lengths(512) == Lengths(511, 512, targets)
    assert DropTokens().lengths(512) == Lengths(511, 512, 104)
    assert BertStyle(rate).lengths(512) == MassStyle(rate).lengths(512) == Lengths(511, 512, 512)


def test_at_512_every_example_fills_its_row():
    lengths = SpanCorruption().lengths(512)
    noise_BL = hidden(0.15, 3, 500, lengths.raw)
    assert (noise_BL.sum(1) == 85).all()
    starts_BL = noise_BL[:, 1:] & ~noise_BL[:, :-1]
    assert (starts_BL.sum(1) == 28).all()
    pairs = made(SpanCorruption(), texts(500, lengths.raw), lengths)
    assert (pairs.source_length_B == 511 + 1).all()
    assert (pairs.target_length_B == 113 + 1).all()
    assert ((pairs.source_BS >= IDS.pieces).sum(1) == 28).all()


@steady
@given(
    input_length=st.integers(4, 300),
    rate=st.floats(0.05, 0.8),
    mean_span=st.floats(1, 12),
    inputs=st.sampled_from(INPUTS),
    targets=st.sampled_from(TARGETS),
)
def test_lengths_cut_nothing_whatever_the_setting(
    input_length: int, rate: float, mean_span: float, inputs: str, targets: str
):
    objective = Denoising(rate, min(mean_span, input_length), inputs, targets)
    lengths = objective.lengths(input_length)
    raw_BL = texts(8, lengths.raw)
    cut, whole = made(objective, raw_BL, lengths), made(objective, raw_BL)
    assert (cut.source_length_B == whole.source_length_B).all()
    if rate != 0.5:
        assert (cut.target_length_B == whole.target_length_B).all()


# --- Table 3 ------------------------------------------------------------------------------------------------------

WORDS = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week", "."]
TEXT = Ids(size=3 + len(WORDS) + 100)
SPELL = dict(enumerate(WORDS, 3)) | {TEXT.sentinel(k): f"<{k}>" for k in range(100)} | {EOS: "</s>"}


def spelt(ids: np.ndarray) -> str:
    return " ".join(SPELL[int(i)] for i in ids)


@pytest.mark.parametrize(
    ("objective", "noise", "source", "target"),
    [
        (MassStyle(), "for inviting last", "Thank you <0> <0> me to your party <0> week .", " ".join(WORDS)),
        (
            ReplaceSpans(),
            "for inviting last",
            "Thank you <0> me to your party <1> week .",
            "<0> for inviting <1> last <2>",
        ),
        (DropTokens(), "for inviting last", "Thank you me to your party week .", "for inviting last"),
        (
            SpanCorruption(),
            "for inviting me your party last",
            "Thank you <0> to <1> week .",
            "<0> for inviting me <1> your party last <2>",
        ),
    ],
)
def test_table_3(objective: Denoising, noise: str, source: str, target: str):
    raw_BL, noise_BL = np.arange(3, 14, dtype=np.int32)[None], np.isin(WORDS, noise.split())[None]
    pair = hide(objective, raw_BL, np.array([11]), noise_BL, keys(0, "noise", np.arange(1)), TEXT, roomy(11))[0]
    assert (spelt(pair.source), spelt(pair.target)) == (f"{source} </s>", f"{target} </s>")


def test_table_3_where_the_row_itself_is_drawn():
    raw_BL = np.tile(np.arange(3, 14, dtype=np.int32), (2000, 1))
    for pair in made(PrefixLM(), raw_BL[:50], ids=TEXT):
        assert f"{spelt(pair.source[:-1])} {spelt(pair.target)}" == " ".join(WORDS) + " </s>"
    for pair in made(Deshuffle(), raw_BL[:50], ids=TEXT):
        assert sorted(pair.source[:-1].tolist()) == list(range(3, 14))
        assert (pair.source[-1], spelt(pair.target)) == (EOS, " ".join(WORDS) + " </s>")
    # "Thank you <M> <M> me to your party apple week .": among 2,000 draws there are some with two masks and a word.
    noise_BL = np.tile(np.isin(WORDS, ["for", "inviting", "last"]), (2000, 1))
    pairs = hide(BertStyle(), raw_BL, np.full(2000, 11), noise_BL, keys(0, "noise", np.arange(2000)), TEXT, roomy(11))
    assert (pairs.source_BS[:, :11][~noise_BL] == raw_BL[~noise_BL]).all()
    assert (pairs.target_BT[:, :11] == raw_BL).all()
    masks_B = (pairs.source_BS[:, [2, 3, 8]] == TEXT.sentinel(0)).tolist()
    assert [True, True, False] in masks_B
    assert [True, True, True] in masks_B
    for pair in made(CausalLM(), raw_BL[:3], ids=TEXT):
        assert (pair.source.tolist(), spelt(pair.target)) == ([EOS], " ".join(WORDS) + " </s>")


# --- the encodings against a slow reading of the prose ------------------------------------------------------------


def slowly(objective: Denoising, tokens: list[int], noise: list[bool], ids: Ids, most_s: int, most_t: int) -> Pair:
    """Denoising as its docstring has it, with lists; not the random ids of BERT-style."""
    runs = [(gone, [token for token, _ in run]) for gone, run in
            itertools.groupby(zip(tokens, noise, strict=True), key=lambda both: both[1])]  # fmt: skip
    if objective.overflow == "enough":
        spared, used = [], Counter()
        for gone, run in runs:
            gone = gone and max(used[True], used[False]) < ids.sentinels
            if spared and spared[-1][0] == gone:
                spared[-1][1].extend(run)
            else:
                spared.append((gone, list(run)))
                used[gone] += 1
        runs = spared
    source, target, count = [], [], Counter()
    for gone, run in runs:
        sentinel = max(3, ids.size - 1 - count[gone])
        count[gone] += 1
        if not gone:
            source += run
        elif objective.inputs == "unique":
            source += [sentinel]
        elif objective.inputs == "mask":
            source += [ids.size - 1] * len(run)
        if gone or objective.targets == "full":
            target += run
        elif objective.targets == "unique":
            target += [sentinel]
    return Pair(np.array([*source[: most_s - 1], EOS]), np.array([*target[: most_t - 1], EOS]))


@steady
@given(
    noise=st.lists(st.booleans(), min_size=1, max_size=90),
    inputs=st.sampled_from(["mask", "unique", "drop"]),
    targets=st.sampled_from(TARGETS),
    overflow=st.sampled_from(["reference", "enough"]),
    sentinels=st.sampled_from([1, 2, 7, 100]),
    widths=st.tuples(st.integers(1, 100), st.integers(1, 100)),
)
def test_encodings_are_those_of_the_slow_reading(
    noise: list[bool], inputs: str, targets: str, overflow: str, sentinels: int, widths: tuple[int, int]
):
    objective = Denoising(0.5, None, inputs, targets, overflow)
    ids = Ids(size=30 + sentinels, sentinels=sentinels)
    raw_BL = texts(1, len(noise), ids)
    noise_key = keys(0, "noise", np.arange(1))
    lengths = Lengths(len(noise), *widths)
    found = hide(objective, raw_BL, np.array([len(noise)]), np.array([noise]), noise_key, ids, lengths)[0]
    expected = slowly(objective, raw_BL[0].tolist(), noise, ids, *widths)
    assert found.source.tolist() == expected.source.tolist()
    assert found.target.tolist() == expected.target.tolist()


def merged(pair: Pair, ids: Ids) -> list[int]:
    """A text put together again: the k-th sentinel of the source stands for the k-th run of the target."""

    def sentinels_count_down(row: np.ndarray) -> None:
        there = row[row >= ids.pieces]
        assert there.tolist() == [ids.sentinel(k) for k in range(len(there))]

    sentinels_count_down(pair.source)
    sentinels_count_down(pair.target)
    groups = itertools.groupby(pair.target[:-1].tolist(), key=lambda i: i >= ids.pieces)
    runs = [list(run) for is_sentinel, run in groups if not is_sentinel]
    text: list[int] = []
    for i in pair.source[:-1].tolist():
        text += runs.pop(0) if i >= ids.pieces else [i]
    assert not runs
    return text


@steady
@given(
    length=st.integers(1, 400),
    rate=st.floats(0.01, 0.95),
    mean_span=st.none() | st.floats(1, 20),
    seed=st.integers(0, 2**40),
)
def test_source_and_target_give_back_the_text(length: int, rate: float, mean_span: float | None, seed: int):
    raw_BL = texts(3, length)
    objective = Denoising(rate, mean_span, "unique", "unique", "enough")
    for row, pair in zip(raw_BL, made(objective, raw_BL, seed=seed), strict=True):
        assert merged(pair, IDS) == row.tolist()


def test_span_corruption_closes_with_no_sentinel_and_iid_noise_does_where_the_text_goes_on():
    raw_BL = texts(300, 200)
    for pair in made(SpanCorruption(), raw_BL):
        assert pair.target[-2] < IDS.pieces
        assert pair.target[0] == pair.source[pair.source >= IDS.pieces][0] == IDS.sentinel(0)
    closed = 0
    for row, pair in zip(raw_BL, made(ReplaceSpans(), raw_BL), strict=True):
        goes_on = pair.source[-2] == row[-1]
        assert (pair.target[-2] >= IDS.pieces) == goes_on
        closed += goes_on
    assert 0 < closed < 300


# --- which tokens are hidden --------------------------------------------------------------------------------------


@steady
@given(length=st.integers(2, 700), rate=st.floats(0.01, 0.99), mean_span=st.floats(1, 40))
def test_a_span_mask_hides_so_many_tokens_in_so_many_runs(length: int, rate: float, mean_span: float):
    noise_BL = hidden(rate, mean_span, 4, length)
    assert not noise_BL[:, 0].any()
    assert noise_BL[:, -1].all()
    tokens = min(max(round(length * rate), 1), length - 1)
    assert (noise_BL.sum(1) == tokens).all()
    runs = min(max(round(tokens / mean_span), 1), length - tokens)
    assert ((noise_BL[:, 1:] & ~noise_BL[:, :-1]).sum(1) == runs).all()


def test_a_text_of_twenty_tokens_only_ever_loses_its_tail():
    assert (hidden(0.15, 3, 200, 20) == ([False] * 17 + [True] * 3)).all()


def test_all_partitions_are_equally_likely():
    # 13 tokens, 6 hidden in 3 runs: 10 ways to divide the hidden ones, 15 for the other 7, each pair of ways alike.
    noise_BL = hidden(0.5, 2, 30_000, 13)
    found = Counter(
        tuple(len(list(run)) for _, run in itertools.groupby(row)) for row in noise_BL.tolist()
    )  # lengths in turn: open, hidden, open, hidden, open, hidden

    def parts(n: int) -> list[tuple[int, ...]]:
        return [(a, b - a, n - b) for a, b in itertools.combinations(range(1, n), 2)]

    cells = [tuple(itertools.chain(*zip(o, h, strict=True))) for o in parts(7) for h in parts(6)]
    assert len(cells) == comb(6, 2) * comb(5, 2)
    fair(found, cells)


@pytest.mark.parametrize("rate", [0.15, 0.5])
def test_iid_noise_takes_every_token_on_its_own(rate: float):
    noise_BL = hidden(rate, None, 40_000, 5)
    found = Counter(map(tuple, noise_BL.tolist()))
    cells = list(itertools.product([False, True], repeat=5))
    chances = [rate ** sum(cell) * (1 - rate) ** (5 - sum(cell)) for cell in cells]
    if rate < 0.5:  # four or five of five are too rare to be cells of their own
        common = [i for i, cell in enumerate(cells) if sum(cell) < 4]
        found = Counter(cell if sum(cell) < 4 else "rare" for cell in found.elements())
        cells, chances = [cells[i] for i in common], [chances[i] for i in common]
        cells, chances = [*cells, "rare"], [*chances, 1 - sum(chances)]
    fair(found, cells, chances)


def test_iid_noise_at_511_tokens_is_as_measured_in_the_official_pipeline():
    """SEMANTICS.md section 5: at 10 % targets have a median of 100 tokens, 127 at the 99th percentile; more than 100
    sentinels in 26 % of examples at 25 %, in all at 50 % (128 on average)."""
    raw_BL = texts(20_000, 511)
    length_B = made(ReplaceSpans(0.10), raw_BL).target_length_B
    assert abs(np.median(length_B) - 100) <= 2
    assert abs(np.quantile(length_B, 0.99) - 127) <= 3
    runs_B = {
        rate: (m := hidden(rate, None, 20_000, 511))[:, 0] + (m[:, 1:] & ~m[:, :-1]).sum(1) for rate in (0.25, 0.5)
    }
    assert abs((runs_B[0.25] > 100).mean() - 0.26) < 0.03
    assert (runs_B[0.5] > 100).all()
    assert abs(runs_B[0.5].mean() - 128) < 0.5


def test_bert_style_is_nine_parts_sentinel_and_one_part_any_id():
    ids = Ids(size=150)
    raw_BL = np.full((4000, 200), 7, dtype=np.int32)
    noise_BL = np.ones((4000, 200), np.bool_)
    noise_keys = keys(3, "noise", np.arange(4000))
    pairs = hide(BertStyle(), raw_BL, np.full(4000, 200), noise_BL, noise_keys, ids, roomy(200))
    found = Counter(pairs.source_BS[:, :200].ravel().tolist())
    any_id = 0.1 / (ids.size - 3)
    fair(found, list(range(3, ids.size)), [any_id] * (ids.size - 4) + [0.9 + any_id])


def test_every_order_is_equally_likely_in_deshuffling():
    raw_BL = np.tile(np.arange(3, 7, dtype=np.int32), (24_000, 1))
    pairs = made(Deshuffle(), raw_BL)
    found = Counter(map(tuple, pairs.source_BS[:, :4].tolist()))
    fair(found, list(itertools.permutations(range(3, 7))))


def test_every_split_of_a_prefix_is_equally_likely():
    pairs = made(PrefixLM(), texts(20_000, 40))
    fair(Counter((pairs.source_length_B - 1).tolist()), list(range(1, 40)))
    assert (pairs.source_length_B + pairs.target_length_B == 42).all()


# --- more runs than sentinels -------------------------------------------------------------------------------------


def test_the_reference_goes_on_into_ordinary_ids_and_enough_does_not():
    raw_BL = np.full((200, 511), 7, dtype=np.int32)
    reference = made(ReplaceSpans(0.5), raw_BL)
    enough = made(Denoising(0.5, None, "unique", "unique", "enough"), raw_BL)
    for over, pair in zip(reference, enough, strict=True):
        ordinary = set(over.source.tolist()) - {7, EOS}
        assert min(ordinary) < IDS.pieces  # 31 999 and below
        assert sorted(ordinary, reverse=True) == [IDS.size - 1 - k for k in range(len(ordinary))]
        assert set(pair.source.tolist()) | set(pair.target.tolist()) <= {7, EOS, *range(IDS.pieces, IDS.size)}
        used = [len({i for i in side.tolist() if i >= IDS.pieces}) for side in (pair.source, pair.target)]
        assert max(used) == 100  # one side or the other uses them all; then nothing more is hidden
        assert merged(pair, IDS) == [7] * 511


def test_with_more_sentinels_in_the_vocabulary_both_modes_are_the_same():
    ids = Ids(size=32_300, sentinels=300)
    raw_BL = texts(50, 511)
    reference = made(ReplaceSpans(0.5), raw_BL, ids=ids)
    enough = made(Denoising(0.5, None, "unique", "unique", "enough"), raw_BL, ids=ids)
    assert (reference.source_BS == enough.source_BS).all()
    assert (reference.target_BT == enough.target_BT).all()


def test_a_vocabulary_smaller_than_the_runs_never_gives_ids_that_are_none():
    ids = Ids(size=20, sentinels=5)
    pairs = made(ReplaceSpans(0.5), texts(50, 200, ids), ids=ids)
    for pair in pairs:
        assert pair.source[:-1].min() >= 3
        assert pair.target[:-1].min() >= 3


# --- rows know nothing of each other ------------------------------------------------------------------------------


@by_label
def test_a_row_does_not_depend_on_its_batch(objective: Objective):
    rng = np.random.default_rng(5)
    lengths = objective.lengths(64)
    raw_BL, length_B = texts(40, lengths.raw), rng.integers(1, lengths.raw + 1, 40)
    noise_keys = keys(9, "noise", np.arange(40))
    whole = objective.pairs(raw_BL, length_B, noise_keys, IDS, lengths)
    some = rng.permutation(40)[:13]
    wider_BL = np.concatenate([raw_BL[some], np.full((13, 5), 9, np.int32)], axis=1)
    part = objective.pairs(wider_BL, length_B[some], noise_keys[some], IDS, lengths)
    assert (part.source_BS == whole.source_BS[some]).all()
    assert (part.target_BT == whole.target_BT[some]).all()
    assert (part.source_length_B == whole.source_length_B[some]).all()
    assert (part.target_length_B == whole.target_length_B[some]).all()
    other = objective.pairs(raw_BL, length_B, keys(10, "noise", np.arange(40)), IDS, lengths)
    drawn = (other.source_BS != whole.source_BS).any() or (other.target_BT != whole.target_BT).any()
    assert drawn == (not isinstance(objective, CausalLM))


@by_label
@pytest.mark.parametrize("length", ["1", "2", "max", "max + 1"])
def test_the_shortest_and_the_longest_rows(objective: Objective, length: str):
    lengths = objective.lengths(32)
    n = {"1": 1, "2": 2, "max": lengths.raw, "max + 1": lengths.raw + 1}[length]
    raw_BL = texts(64, n)
    pairs = made(objective, raw_BL, lengths)
    assert pairs.source_BS.shape == (64, lengths.inputs)
    assert pairs.target_BT.shape == (64, lengths.targets)
    for row, pair in zip(raw_BL.tolist(), pairs, strict=True):
        for ids in (pair.source, pair.target):
            assert ids[-1] == EOS
            assert (ids[:-1] >= 3).all()
        if n <= 2:  # nothing is cut here, and nothing is lost
            assert set(row) <= {*pair.source.tolist(), *pair.target.tolist()}
    for block, length_B in [(pairs.source_BS, pairs.source_length_B), (pairs.target_BT, pairs.target_length_B)]:
        assert (block[np.arange(block.shape[1]) >= length_B[:, None]] == 0).all()


@by_label
def test_a_row_that_is_no_row_is_refused(objective: Objective):
    for n in (0, -1, 9):
        with pytest.raises(ValueError, match="block of 8"):
            objective.pairs(texts(2, 8), np.array([4, n]), keys(0, "noise", np.arange(2)), IDS, roomy(8))


# --- values and names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, 1, -0.15, 1.5, float("nan"), float("inf")])
def test_a_rate_that_hides_nothing_or_everything_is_refused(rate: float):
    with pytest.raises(UserError, match="objective: rate: found"):
        SpanCorruption(rate)


@pytest.mark.parametrize("mean_span", [0, 0.5, -3, float("nan"), float("inf")])
def test_a_mean_span_below_one_token_is_refused(mean_span: float):
    with pytest.raises(UserError, match="objective: mean_span: found"):
        SpanCorruption(0.15, mean_span)


def test_lengths_that_cannot_be_filled_are_refused():
    for objective in ALL:
        for n in (-1, 0, 3):
            with pytest.raises(UserError, match=f"input length of {n}; give at least 4"):
                objective.lengths(n)
        lengths = objective.lengths(4)
        assert min(lengths.raw, lengths.targets) >= 2
    with pytest.raises(UserError, match="mean_span: found 600 for inputs of 512"):
        SpanCorruption(0.15, 600).lengths(512)
    with pytest.raises(UserError, match="leaves next to nothing"):
        SpanCorruption(0.9999, 500).lengths(512)


def test_objectives_are_values():
    assert len(set(ALL)) == len({objective.label for objective in ALL}) == len(ALL)
    assert SpanCorruption(mean_span=3) == SpanCorruption(0.15, 3.0)
    with pytest.raises(AttributeError):
        SpanCorruption().rate = 0.5  # type: ignore[misc]
    assert [objective.concatenates for objective in ALL[:3]] == [False, True, False]
    assert all(objective.concatenates for objective in ALL[3:])


def test_every_name_is_understood_with_its_settings_and_without():
    for name in names()[:-1]:
        assert parse(name) == parse(name.partition("(")[0])
    assert parse("Span-Corruption(0.25, 5)") == SpanCorruption(0.25, 5)
    custom = 'denoising(rate=0.5, mean_span=2, inputs="drop", targets="full", overflow="enough")'
    assert parse(custom) == Denoising(0.5, 2, "drop", "full", "enough")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spam_corruption", "found 'spam_corruption'; did you mean span_corruption?"),
        ("", "found ''; give one of prefix_lm, "),
        ("span_corruption(rat=0.2)", "write it as span_corruption(rate=0.15, mean_span=3)"),
        ("span_corruption(rate=)", "write it as span_corruption(rate=0.15, mean_span=3)"),
        ("span_corruption(**{})", "write it as span_corruption(rate=0.15, mean_span=3)"),
        ("span_corruption(rate='x')", "write it as span_corruption(rate=0.15, mean_span=3)"),
        ("span_corruption(rate=__import__('os'))", "write it as span_corruption(rate=0.15, mean_span=3)"),
        ("span_corruption(" + "(" * 100_000, "write it as span_corruption(rate=0.15, mean_span=3)"),
        ("deshuffle(3)", "write it as deshuffle"),
        ("span_corruption(rate=2)", "objective: rate: found 2; give a number above 0 and below 1"),
        ('denoising(0.1, 3, "mask", "none")', "objective: targets: found 'none'; give one of full, unique, drop"),
        ('denoising(0.1, 3, "cover", "full")', "objective: inputs: found 'cover'; give one of mask, "),
    ],
)
def test_a_name_that_is_none_says_what_to_write(text: str, message: str):
    with pytest.raises(UserError) as error:
        parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


# --- the mixture of denoisers -------------------------------------------------------------------------------------


def unmoded(pairs: Pairs, ids: Ids = IDS) -> tuple[list[str], list[Pair]]:
    """The mode of each row, and the row without the token that says it."""
    first = ids.pieces + len(MODES) - 1  # the id of "R"; those of "S" and "X" are below it
    return [MODES[first - int(pair.source[0])] for pair in pairs], [
        Pair(pair.source[1:], pair.target) for pair in pairs
    ]


denoisers = st.builds(
    Denoiser,
    mode=st.sampled_from(MODES),
    rate=st.floats(0.01, 0.95),
    mean_span=st.none() | st.floats(1, 100),
    weight=st.floats(0.1, 10),
)


@steady
@given(
    length=st.integers(2, 400),
    members=st.lists(denoisers, min_size=1, max_size=7),
    modes=st.booleans(),
    sentinels=st.sampled_from([4, 10, 100]),
    seed=st.integers(0, 2**40),
)
def test_a_mixture_gives_back_the_text_whatever_is_mixed(
    length: int, members: list[Denoiser], modes: bool, sentinels: int, seed: int
):
    ids = Ids(size=1000 + sentinels, sentinels=sentinels)
    raw_BL, objective = texts(6, length, ids), MixtureOfDenoisers(tuple(members), modes)
    pairs = made(objective, raw_BL, objective.lengths(max(4, length + 1 + modes)), ids, seed)
    told, rows = unmoded(pairs, ids) if modes else ([], list(pairs))
    drawn = objective.drawn(keys(seed, "noise", np.arange(6)))
    if modes:
        assert told == [members[k].mode for k in drawn]
    for row, pair in zip(raw_BL, rows, strict=True):
        assert merged(pair, ids) == row.tolist()
        assert not modes or pair.target.max(initial=0) >= ids.pieces + len(MODES)  # what says a mode hides nothing


@steady
@given(input_length=st.integers(4, 300), members=st.lists(denoisers, min_size=1, max_size=4), modes=st.booleans())
def test_a_mixtures_lengths_cut_nothing(input_length: int, members: list[Denoiser], modes: bool):
    objective = MixtureOfDenoisers(tuple(members), modes)
    lengths = objective.lengths(input_length)
    raw_BL = texts(12, lengths.raw)
    cut, whole = made(objective, raw_BL, lengths), made(objective, raw_BL)
    assert (cut.source_length_B == whole.source_length_B).all()
    assert (cut.target_length_B == whole.target_length_B).all()
    assert cut.source_BS.shape[1] == input_length


def test_every_denoiser_of_ul2_comes_as_often_and_hides_what_it_says():
    lengths = Ul2().lengths(512)
    raw_BL, noise_keys = texts(4000, lengths.raw), keys(0, "noise", np.arange(4000))
    which_B = Ul2().drawn(noise_keys)
    fair(Counter(which_B.tolist()), list(range(len(UL2))))
    pairs = made(Ul2(), raw_BL, lengths)
    told, rows = unmoded(pairs)
    for k, denoiser in enumerate(UL2):
        tokens, runs = denoiser.hidden(lengths.raw)
        mine = [rows[i] for i in np.flatnonzero(which_B == k)]
        assert {told[i] for i in np.flatnonzero(which_B == k)} == {denoiser.mode}
        assert {int((pair.source >= IDS.pieces).sum()) for pair in mine} == {runs}
        assert {int((pair.target[:-1] < IDS.pieces).sum()) for pair in mine} == {tokens}
    # (tokens, runs) of 510: 15 % are 76, a quarter 128, a half 255
    assert [denoiser.hidden(510) for denoiser in UL2] == [
        (76, 25), (76, 10), (128, 1), (255, 85), (255, 32), (76, 1), (255, 4),
    ]  # fmt: skip


def test_a_sequential_denoiser_hides_the_end_of_the_text():
    raw_BL = texts(5, 20)
    for row, pair in zip(raw_BL, made(MixtureOfDenoisers((Denoiser("S", 0.25, None),)), raw_BL), strict=True):
        assert pair.source.tolist() == [IDS.pieces + 1, *row[:15], IDS.sentinel(0), EOS]
        assert pair.target.tolist() == [IDS.sentinel(0), *row[15:], EOS]


def test_weights_are_chances():
    mixture = MixtureOfDenoisers((Denoiser("R", 0.15, 3), Denoiser("X", 0.5, 12, 3.0)))
    drawn = mixture.drawn(keys(3, "noise", np.arange(4000)))
    fair(Counter(drawn.tolist()), [0, 1], [0.25, 0.75])


def test_a_mixture_that_cannot_be_is_refused_in_one_line():
    with pytest.raises(UserError, match="objective: mode: found 'Z'; give one of R, S, X"):
        Denoiser("Z", 0.1, 3)
    with pytest.raises(UserError, match=r"objective: rate: found 1.5; give a number above 0 and below 1"):
        Denoiser("R", 1.5, 3)
    with pytest.raises(UserError, match="objective: weight: found 0; give a number above 0"):
        Denoiser("R", 0.1, 3, 0)
    with pytest.raises(UserError, match="objective: denoisers: found none"):
        MixtureOfDenoisers(())
    with pytest.raises(UserError, match="found a vocabulary of 3 sentinels; mode tokens take 3"):
        made(Ul2(), texts(1, 20), ids=Ids(size=1000, sentinels=3))
