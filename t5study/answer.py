"""Answer: a folder and prompts -> what the model says. Nothing of training or of the study is loaded on the way.

from t5study.answer import load

model = load("my-tuned/model")
print(model.answer(["tone: what a lovely day"]))
"""

from __future__ import annotations

import atexit
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import IO

import numpy as np
import torch

from t5study.decode.generate import generate
from t5study.decode.methods import Beam, Greedy, Method, Sample
from t5study.decode.rows import LONGEST_SOURCE
from t5study.decode.scores import target_scores
from t5study.decode.search import Answer
from t5study.decode.weights import PRECISIONS, ready
from t5study.ground.errors import UserError
from t5study.ground.fingerprint import fingerprint
from t5study.ground.pairs import EOS, pad_rows
from t5study.ground.seeds import key
from t5study.ground.store import verify, whole_folder
from t5study.model.architectures import EncoderDecoder, LanguageModel
from t5study.model.released import digest, load_released, load_vocab, shape_of
from t5study.vocab import AnyVocab

LONGEST_PROMPT = LONGEST_SOURCE  # told here by the prompt's number
AT_ONCE = 512  # prompts held at a time: enough for rows of like length to share a batch, few enough to see answers come

GREEDY = Greedy()


@dataclass(frozen=True)
class Answered:
    """score: log-probability of the answer, EOS counted; from a beam search, that over the length penalty."""

    input: str
    answer: str
    score: float


@dataclass(frozen=True)
class Settings:
    """How to answer. max_length: tokens of the longest answer, EOS counted. average: what several models average at
    each step, "logits" or "probabilities"."""

    max_length: int = 64
    method: Method = GREEDY
    average: str = "logits"
    batch_rows: int = 64


Generate = Callable[[np.ndarray, Settings], list[Answer]]  # source ids (N, S), padded with 0


@dataclass(frozen=True)
class Answerer:
    """A model, or several as one, that answers text with text."""

    vocab: AnyVocab
    generate: Generate

    def answer(
        self,
        prompts: Sequence[str],
        max_length: int = 64,
        *,
        method: Method | None = None,
        average: str = "logits",
        batch_rows: int = 64,
    ) -> list[str]:
        """Answers, in the prompts' order; see `stream`. method: Greedy() unless given; `method_of` makes one."""
        settings = Settings(max_length, method or GREEDY, average, batch_rows)
        return [one.answer for one in self.stream(prompts, settings)]

    def stream(
        self, prompts: Iterable[str], settings: Settings | None = None, at_once: int = AT_ONCE
    ) -> Iterator[Answered]:
        """Answers as they come, in the prompts' order, of which `at_once` are held at a time.

        `<extra_id_k>` in a prompt is the sentinel, so a model that was only pre-trained fills the gaps. A prompt's
        answer does not depend on the others, but for rounding in matrix products of other sizes; a sampled one
        depends on its place among them. UserError, with its number, for a prompt that cannot be used.
        """
        settings, numbers, rest = settings or Settings(), count(1), iter(prompts)
        for part in count():
            some = list(islice(rest, at_once))
            if not some:
                return
            source_NS, _ = pad_rows([self._ids(next(numbers), prompt) for prompt in some])
            found = self.generate(source_NS, _of_part(settings, part))
            for prompt, answer in zip(some, found, strict=True):
                yield Answered(prompt, self.vocab.decode(answer.ids), answer.score)

    def _ids(self, number: int, prompt: str) -> np.ndarray:
        """A prompt's ids, EOS at the end."""
        if any("\ud800" <= character <= "\udfff" for character in prompt):
            raise UserError(f"prompt {number}: found bytes that are not UTF-8; give text")
        ids_S = np.append(self.vocab.encode(prompt, sentinels=True), EOS).astype(np.int32)
        if len(ids_S) > LONGEST_PROMPT:
            raise UserError(f"prompt {number}: found {len(ids_S):,} tokens; give at most {LONGEST_PROMPT:,}")
        return ids_S


def _of_part(settings: Settings, part: int) -> Settings:
    """The same, but that no two parts draw the same numbers."""
    if not part or not isinstance(settings.method, Sample):
        return settings
    return replace(settings, method=replace(settings.method, seed=key(settings.method.seed, "part", part)))


# --- loading ------------------------------------------------------------------------------------------------------


def load(
    folders: Path | str | Sequence[Path | str],
    *,
    vocab: Path | str | None = None,
    device: str = "cpu",
    precision: str = "float32",
    backend: str = "torch",
    threads: int = 1,
) -> Answerer:
    """A released folder's model, or several that answer together, ready to be asked.

    vocab: a `.model`, or "bytes", for a folder without a vocabulary. precision: float32, or int8 on a CPU. backend:
    torch, or ctranslate2 (docs/answer.md says what it can do; it is converted to on first use). threads: of
    ctranslate2; torch's are the process's. UserError for what cannot be used, or not together.
    """
    places = [Path(one) for one in ([folders] if isinstance(folders, Path | str) else folders)]
    if precision not in PRECISIONS:
        raise UserError(f"precision: found {precision!r}; give one of {', '.join(PRECISIONS)}")
    if backend not in ("torch", "ctranslate2"):
        raise UserError(f"backend: found {backend!r}; give torch or ctranslate2")
    if not places:
        raise UserError("models: found none; give a folder")
    path = None if vocab is None else Path(vocab)
    if backend == "ctranslate2":
        if len(places) > 1:
            raise UserError("backend: ctranslate2 answers with one model, not with several; give --backend torch")
        return _with_ctranslate(places[0], path, device, precision, threads)
    members, vocabs = [], []
    for place in places:
        model, shape = load_released(place)
        vocabs.append(load_vocab(place, shape, path))
        members.append(ready(model.to(device), precision))
        if vocabs[-1].digest != vocabs[0].digest:
            raise UserError(f"{place}: has another vocabulary than {places[0]}; models that answer together share one")

    def run(source_NS: np.ndarray, settings: Settings) -> list[Answer]:
        return generate(
            members,
            source_NS,
            settings.max_length,
            settings.method,
            average=settings.average,
            precision=precision,
            batch_rows=settings.batch_rows,
        )

    return Answerer(vocabs[0], run)


def _with_ctranslate(folder: Path, vocab: Path | None, device: str, precision: str, threads: int) -> Answerer:
    from t5study.model.ctranslate import Asked, library

    library()
    place, pieces = converted(folder, vocab)
    asked = Asked.open(place, precision, threads, device)

    def run(source_NS: np.ndarray, settings: Settings) -> list[Answer]:
        method = settings.method
        if isinstance(method, Sample):
            raise UserError("backend: ctranslate2 draws other numbers than we do; sample with --backend torch")
        beams, alpha = (method.beams, method.alpha) if isinstance(method, Beam) else (1, 0.0)
        sources = [row[: np.flatnonzero(row)[-1] + 1] for row in source_NS]
        if any(len(source) == 1 for source in sources):
            raise UserError("backend: found an empty prompt, to which ctranslate2 says nothing; give --backend torch")
        found = asked.answers(sources, settings.max_length, beams, alpha, settings.batch_rows)
        return [Answer(ids, float(score)) for ids, score in found]

    return Answerer(pieces, run)


def converted(folder: Path, vocab: Path | None = None) -> tuple[Path, AnyVocab]:
    """The model as CTranslate2 reads it, and its vocabulary: converted on first use into a folder beside it, which is
    named by what it was made from; where nobody may write there, into a temporary one that goes with the process.

    Nothing is kept that does not give our own likelihoods. UserError if it does not.
    """
    from t5study.model.ctranslate import write_ctranslate

    folder = folder.resolve()
    shape = shape_of(folder)
    pieces = load_vocab(folder, shape, vocab)
    weights = digest(folder)
    place = folder.with_name(f"{folder.name}.ctranslate2-{fingerprint([weights, pieces.digest])[:12]}")
    if place.exists():
        verify(place)
        return place, pieces
    if not os.access(folder.parent, os.W_OK):
        temporary = tempfile.TemporaryDirectory(prefix="t5study-")
        atexit.register(temporary.cleanup)
        place = Path(temporary.name) / place.name
    with whole_folder(place) as work:
        model, _ = load_released(folder)
        write_ctranslate(model, work, pieces, weights=weights)
        _check_likelihoods(model, work, pieces)
    return place, pieces


def _check_likelihoods(model: EncoderDecoder | LanguageModel, folder: Path, vocab: AnyVocab) -> None:
    """With one thread on either side: two pools of threads in one process wait for each other by spinning."""
    from t5study.model.ctranslate import Asked

    random = np.random.default_rng(0)
    rows = [np.append(random.integers(3, vocab.ids.pieces, n - 1), EOS) for n in (2, 7, 30, 150, 1, 12, 3, 40)]
    sources, targets = rows[:4], rows[4:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours_N, _ = target_scores(model, pad_rows(sources)[0], pad_rows(targets)[0])
    finally:
        torch.set_num_threads(threads)
    theirs_N = Asked.open(folder, "float32", threads=1).nats(sources, targets)
    if (worst := np.abs(ours_N - theirs_N).max()) > 1e-3 * max(1.0, ours_N.max()):
        raise UserError(
            f"{folder.parent}: ctranslate2 gives other likelihoods than the model itself (by {worst:.3g} nats), so it "
            "is not used; answer with --backend torch"
        )


def answer(
    checkpoint: Path,
    prompts: Sequence[str],
    max_length: int = 64,
    *,
    vocab: Path | None = None,
    device: str = "cpu",
    batch_rows: int = 64,
) -> list[str]:
    """Greedy answers of a released folder's model to prompts, in their order: `load` and `Answerer.answer` in one."""
    return load(checkpoint, vocab=vocab, device=device).answer(prompts, max_length, batch_rows=batch_rows)


def method_of(
    beams: int = 1,
    alpha: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> Method:
    """A method from what was asked for: beams, or a draw as soon as one of its settings is given. UserError for both.

    >>> method_of(), method_of(beams=4), method_of(top_k=10)
    (Greedy(), Beam(beams=4, alpha=0.6), Sample(temperature=1.0, top_k=10, top_p=1.0, seed=0))
    """
    asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    drawn = {name: value for name, value in asked.items() if value is not None}
    if drawn and (beams != 1 or alpha is not None):
        raise UserError(f"method: found beams with {', '.join(drawn)}; search with beams or sample, not both")
    if drawn:
        return Sample(**drawn)
    if beams == 1 and alpha is not None:
        raise UserError("method: found alpha without beams; it weighs the lengths of beams, give more than 1 of them")
    return Greedy() if beams == 1 else Beam(beams) if alpha is None else Beam(beams, alpha)


# --- prompts ------------------------------------------------------------------------------------------------------


def prompts_in(lines: Iterable[str], name: str, as_json: bool) -> Iterator[str]:
    """A prompt a line, or, as JSON lines, {"input": prompt, ...} a line. UserError with the line that is neither."""
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if not as_json:
            yield line
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{name}: line {number}: found {line[:40]!r}, which is no JSON; mend that line") from None
        if not isinstance(row, dict) or not isinstance(row.get("input"), str):
            raise UserError(f'{name}: line {number}: found no text "input"; give {{"input": "a prompt"}} a line')
        yield row["input"]


def open_prompts(path: Path) -> IO[str]:
    """A file of prompts. Bytes that are no UTF-8 are kept, to be told of with their number."""
    if path.is_dir():
        raise UserError(f"{path}: found a folder; give a file of prompts, one a line")
    try:
        return open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a file of prompts, one a line") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
