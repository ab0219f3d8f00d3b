"""Objectives: what pre-training hides, every one of the paper's as a frozen value (sections 3.1.4 and 3.3); a later
one, the mixture of denoisers, is in denoisers.py.

    objective.lengths(512)                              raw tokens to read, and the inputs and targets they give
    objective.pairs(raw_BL, length_B, key_B, ids, ...)  whole batches of examples, one noise key a row

A row is a function of its tokens and its key alone, so neither batching nor an interruption changes it. The paper's
Table 3, with the noise that it shows put there by hand (`hide` is the part that comes after the draw):

>>> from t5study.ground.pairs import EOS
>>> from t5study.ground.seeds import keys
>>> words = "Thank you for inviting me to your party last week .".split()
>>> ids = Ids(size=3 + len(words) + 100)
>>> spell = dict(enumerate(words, 3)) | {ids.sentinel(k): f"<{k}>" for k in range(100)} | {EOS: "</s>"}
>>> def table_3(objective, hidden):
...     raw_BL, noise_BL = np.arange(3, 14, dtype=np.int32)[None], np.isin(words, hidden.split())[None]
...     pair = hide(objective, raw_BL, np.array([11]), noise_BL, keys(0, "noise", np.arange(1)), ids, roomy(11))[0]
...     print(" ".join(spell[int(i)] for i in pair.source), "->", " ".join(spell[int(i)] for i in pair.target))
>>> table_3(MassStyle(), "for inviting last")
Thank you <0> <0> me to your party <0> week . </s> -> Thank you for inviting me to your party last week . </s>
>>> table_3(ReplaceSpans(), "for inviting last")
Thank you <0> me to your party <1> week . </s> -> <0> for inviting <1> last <2> </s>
>>> table_3(DropTokens(), "for inviting last")
Thank you me to your party week . </s> -> for inviting last </s>
>>> table_3(SpanCorruption(), "for inviting me your party last")
Thank you <0> to <1> week . </s> -> <0> for inviting me <1> your party last <2> </s>
"""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from t5study import kernels
from t5study.denoisers import MixtureOfDenoisers, Ul2
from t5study.ground.errors import UserError
from t5study.ground.pairs import Ids, Lengths, Pairs

INPUTS = ("mask", "mask_random", "unique", "drop")
TARGETS = ("full", "unique", "drop")
OVERFLOWS = ("reference", "enough")


def roomy(raw: int) -> Lengths:
    """Lengths that cut nothing."""
    return Lengths(raw, 2 * raw + 2, 2 * raw + 2)


# --- the values -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrefixLM:
    """The text up to a uniformly drawn point -> the rest of it (code: `prefix_lm`). Never crosses documents."""

    concatenates = False
    label = "prefix LM"

    def lengths(self, input_length: int) -> Lengths:
        return Lengths(Lengths.whole(input_length), input_length, input_length)

    def pairs(self, raw_BL: np.ndarray, length_B: np.ndarray, key_B: np.ndarray, ids: Ids, lengths: Lengths) -> Pairs:
        return kernels.run(kernels.prefix_lm, raw_BL, length_B, key_B, lengths)


@dataclass(frozen=True)
class CausalLM:
    """Nothing -> the text (section 3.2.3's language modelling, for the decoder alone)."""

    concatenates = True
    label = "causal LM"

    def lengths(self, input_length: int) -> Lengths:
        return Lengths(Lengths.whole(input_length), 1, input_length)

    def pairs(self, raw_BL: np.ndarray, length_B: np.ndarray, key_B: np.ndarray, ids: Ids, lengths: Lengths) -> Pairs:
        return kernels.run(kernels.causal_lm, raw_BL, length_B, key_B, lengths)


@dataclass(frozen=True)
class Deshuffle:
    """All tokens in a uniformly drawn order -> the text (code: `all_permute`). Never crosses documents."""

    concatenates = False
    label = "deshuffling"

    def lengths(self, input_length: int) -> Lengths:
        return Lengths(Lengths.whole(input_length), input_length, input_length)

    def pairs(self, raw_BL: np.ndarray, length_B: np.ndarray, key_B: np.ndarray, ids: Ids, lengths: Lengths) -> Pairs:
        return kernels.run(kernels.deshuffle, raw_BL, length_B, key_B, lengths)


@dataclass(frozen=True)
class Denoising:
    """Hides part of a text and asks for it. The named constructors below are the paper's settings of it.

    rate: the part of the tokens that is hidden. mean_span: mean length of the hidden runs, None for i.i.d. tokens.
    inputs, what stands for hidden tokens: "mask" one and the same sentinel for each; "mask_random" the same, but one in
    ten becomes a random id; "unique" one sentinel a run, counting; "drop" nothing. targets: "full" text; "unique" the
    hidden runs and one sentinel for each run of the others, so that a closing one says that the text goes on; "drop"
    the hidden tokens alone.
    overflow, when a row has more runs than the vocabulary has sentinels: "reference" goes on counting down into
    ordinary ids without a word, as the official code does; "enough" leaves the runs beyond the last sentinel unhidden.
    """

    rate: float
    mean_span: float | None
    inputs: str
    targets: str
    overflow: str = "reference"

    concatenates = True

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise UserError(f"objective: rate: found {self.rate}; give a number above 0 and below 1")
        if self.mean_span is not None and not (math.isfinite(self.mean_span) and self.mean_span >= 1):
            raise UserError(f"objective: mean_span: found {self.mean_span}; give a number of at least 1")
        for name, value, known in [
            ("inputs", self.inputs, INPUTS),
            ("targets", self.targets, TARGETS),
            ("overflow", self.overflow, OVERFLOWS),
        ]:
            if value not in known:
                raise UserError(f"objective: {name}: found {value!r}; give one of {', '.join(known)}")

    @property
    def label(self) -> str:
        names = {
            ("mask", "full"): "MASS-style",
            ("mask_random", "full"): "BERT-style",
            ("unique", "unique"): "replace spans",
            ("drop", "drop"): "drop tokens",
        }
        name = names.get((self.inputs, self.targets), f"{self.inputs} -> {self.targets}")
        if self.mean_span is not None:
            name = "span corruption" if name == "replace spans" else f"{name} in spans"
        span = "" if self.mean_span is None else f", mean length {self.mean_span:g}"
        return f"{name} {self.rate:.0%}{span}" + (", enough sentinels" if self.overflow == "enough" else "")

    def lengths(self, input_length: int) -> Lengths:
        """Raw tokens that fill `input_length` once corrupted, by the official computation (`random_spans_helper`); for
        i.i.d. noise, `input_length - 1` raw tokens and the official caps on targets, in proportion to the length.

        >>> SpanCorruption(mean_span=3).lengths(512), ReplaceSpans().lengths(512)
        (Lengths(raw=568, inputs=512, targets=114), Lengths(raw=511, inputs=512, targets=192))
        """
        whole = Lengths.whole(input_length)
        if self.targets == "full":
            return Lengths(whole, input_length, input_length)
        mean_span = self.mean_span
        if mean_span is None:
            return Lengths(whole, input_length, self._iid_targets(input_length))
        if mean_span > input_length:
            raise UserError(
                f"objective: mean_span: found {mean_span:g} for inputs of {input_length}; give a shorter one"
            )

        def filled(raw: int) -> tuple[int, int]:
            noise = max(1, round(raw * self.rate))  # Python's half-even rounding, as the official code's
            spans = max(1, round(noise / mean_span))
            standing = spans if self.inputs == "unique" else noise * (self.inputs != "drop")
            return raw - noise + standing + 1, noise + spans * (self.targets == "unique") + 1

        raw = whole
        while filled(raw + 1)[0] <= input_length:
            raw += 1
            if raw > 100 * input_length:
                raise UserError(f"objective: rate: found {self.rate}, which leaves next to nothing; give a lower one")
        inputs, targets = filled(raw)
        if self.rate == 0.5 and targets > inputs:  # the official code's way to equal lengths at one half
            raw, targets = raw - 1, targets - 1
        return Lengths(raw, input_length, targets)

    def _iid_targets(self, input_length: int) -> int:
        """Caps of the official configurations at 512 tokens: 103, 192, 256, 512 at 10, 15, 25, 50 %; 104 if dropped."""
        if self.targets == "drop":
            cap = 104 * self.rate / 0.15
        else:
            cap = float(np.interp(self.rate, [0, 0.10, 0.15, 0.25, 0.50, 1], [1, 103, 192, 256, 512, 1024]))
        return min(max(4, round(cap * input_length / 512)), 2 * input_length)

    def pairs(self, raw_BL: np.ndarray, length_B: np.ndarray, key_B: np.ndarray, ids: Ids, lengths: Lengths) -> Pairs:
        """raw_BL int32 right-padded, length_B tokens a row, key_B uint64 -> one example a row."""
        noise_BL = np.empty(raw_BL.shape, dtype=np.bool_)
        length_B = np.asarray(length_B, dtype=np.int32)
        if self.mean_span is None:
            kernels.iid_noise(noise_BL, length_B, key_B, self.rate)
        else:
            kernels.span_noise(noise_BL, length_B, key_B, self.rate, self.mean_span)
        return hide(self, raw_BL, length_B, noise_BL, key_B, ids, lengths)


def BertStyle(rate: float = 0.15) -> Denoising:
    """Tables 4 and 5: 90 % of the hidden tokens become one sentinel, 10 % any token; the target is the full text."""
    return Denoising(rate, None, "mask_random", "full")


def MassStyle(rate: float = 0.15) -> Denoising:
    """Table 5: BERT-style without the random tokens."""
    return Denoising(rate, None, "mask", "full")


def ReplaceSpans(rate: float = 0.15) -> Denoising:
    """The baseline (section 3.1.4): i.i.d. tokens; each run becomes one sentinel; the target is the runs."""
    return Denoising(rate, None, "unique", "unique")


def DropTokens(rate: float = 0.15) -> Denoising:
    """Table 5: i.i.d. tokens dropped; the target is the dropped tokens."""
    return Denoising(rate, None, "drop", "drop")


def SpanCorruption(rate: float = 0.15, mean_span: float = 3.0) -> Denoising:
    """Table 7: hidden runs of a mean length, all ways to place them equally likely."""
    return Denoising(rate, float(mean_span), "unique", "unique")


Objective = PrefixLM | CausalLM | Deshuffle | Denoising | MixtureOfDenoisers

_NAMED: dict[str, Callable[..., Objective]] = {
    "prefix_lm": PrefixLM,
    "causal_lm": CausalLM,
    "deshuffle": Deshuffle,
    "bert_style": BertStyle,
    "mass_style": MassStyle,
    "replace_spans": ReplaceSpans,
    "drop_tokens": DropTokens,
    "span_corruption": SpanCorruption,
    "denoising": Denoising,
    "ul2": Ul2,
}


def names() -> tuple[str, ...]:
    """What `parse` understands, with every setting spelled out."""
    return (
        "prefix_lm",
        "causal_lm",
        "deshuffle",
        "bert_style(rate=0.15)",
        "mass_style(rate=0.15)",
        "replace_spans(rate=0.15)",
        "drop_tokens(rate=0.15)",
        "span_corruption(rate=0.15, mean_span=3)",
        "ul2(modes=True)",
        f'denoising(rate=0.15, mean_span=3, inputs="{"|".join(INPUTS)}", targets="{"|".join(TARGETS)}", '
        f'overflow="{"|".join(OVERFLOWS)}")',
    )


def parse(text: str) -> Objective:
    """An objective from its name, with or without settings. UserError with the nearest name for anything else.

    >>> parse("span_corruption(mean_span=5)") == SpanCorruption(mean_span=5), parse("deshuffle")
    (True, Deshuffle())
    """
    name, _, rest = text.strip().partition("(")
    name = name.strip().lower().replace("-", "_")
    if name not in _NAMED:
        near = difflib.get_close_matches(name, _NAMED, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(_NAMED)}"
        raise UserError(f"objective: found {text[:200]!r}; {hint}")
    try:
        call = ast.parse(f"f({rest.rstrip().removesuffix(')')})", mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError("no settings")
        settings: dict[str, Any] = {str(word.arg): ast.literal_eval(word.value) for word in call.keywords}
        return _NAMED[name](*(ast.literal_eval(value) for value in call.args), **settings)
    except UserError:
        raise  # a setting that its objective refuses, in its own words
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise UserError(f"objective: found {text[:200]!r}; write it as {_usage(name)}") from None


def _usage(name: str) -> str:
    return next(usage for usage in names() if usage.startswith(name))


# --- arrays in, arrays out --------------------------------------------------------------------------------------


def hide(
    objective: Denoising,
    raw_BL: np.ndarray,
    length_B: np.ndarray,
    noise_BL: np.ndarray,
    key_B: np.ndarray,
    ids: Ids,
    lengths: Lengths,
) -> Pairs:
    """The encodings alone: tokens and their noise mask (bool, True is hidden) -> examples."""
    codes = INPUTS.index(objective.inputs), TARGETS.index(objective.targets)
    enough = objective.overflow == "enough"
    return kernels.run(
        kernels.hide, raw_BL, length_B, key_B, lengths, noise_BL, *codes, enough, ids.size, ids.sentinels
    )
