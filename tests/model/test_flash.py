"""The kernels of flash_kernels.py against attention.py, forward and every gradient; those of fused_kernels.py against
passes.py; both in fp32 and bf16.

Without a GPU Triton's interpreter runs them, in a process of its own, since it is chosen when Triton is imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from little_models import SHAPES, of_family, random_pairs, rows_of

from t5study.ground.errors import UserError
from t5study.model import attention, flash, gpu, inputs
from t5study.model.architectures import arrange, build
from t5study.model.layers import Pass

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed here (extra: dev, on Linux)"
)


def versions(name: str) -> tuple[int, int]:
    """The first two parts of a package's version; (0, 0) if it is not installed."""
    try:
        major, minor = metadata.version(name).split(".")[:2]
    except metadata.PackageNotFoundError:
        return 0, 0
    return int(major), int(minor)


# It takes a loop's bound, an array of one number, for a number, which numpy no longer allows.
interpreted = pytest.mark.skipif(
    versions("triton") < (3, 7) and versions("numpy") >= (2, 4),
    reason="the interpreter of Triton 3.6 (torch 2.11) cannot loop with numpy 2.4: try numpy 2.3",
)


def rows(*command: str) -> list[dict]:
    root = HERE.parents[1]
    paths = os.pathsep.join((str(root), str(HERE.parent), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, *command], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def held(found: list[dict], cases: int) -> None:
    assert len({row["case"] for row in found}) == cases
    for row in found:
        assert row["error"] < row["allowed"], row
        assert row["repeats"], f"the same input gave other bytes: {row}"
        assert row["size"] > 1e-4, f"nothing to compare: {row}"
    biases = [row for row in found if str(row["what"]).endswith("bias")]
    assert len(biases) >= 4


CASES = str(HERE / "flash_cases.py")
BATCH = rows_of([random_pairs(3, 20, 9, 384, seed=2)], 70, 40)


@needs_triton
@interpreted
def test_the_kernels_equal_the_definition_in_the_interpreter() -> None:
    held(rows(CASES, "few"), cases=29)


@needs_triton
@interpreted
@pytest.mark.slow
def test_every_case_equals_the_definition_in_the_interpreter() -> None:
    held(rows(CASES, "interpreted"), cases=92)


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: the kernels ran in Triton's interpreter alone")
def test_the_kernels_equal_the_definition_on_the_gpu() -> None:
    held(rows(CASES, "cuda"), cases=132)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(("capability", "shared", "least"), [(90, 227, 45), (80, 163, 24), (86, 99, 21)])
def test_the_kernels_compile_for_a_gpu_that_is_not_here(
    capability: int, shared: int, least: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To machine code of an H100, an A100 and a 3090, within the shared memory of each, without atomic additions."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found = rows(CASES, "compiled", str(capability), str(shared))
    assert len(found) == least
    for row in found:
        assert row["code"] > 1000, row
        assert row["shared"] <= row["allowed"], row
        assert not row["atomic"], row


@pytest.mark.parametrize(
    ("asked", "triton", "found", "told"),
    [
        (None, True, (9, 0), None),
        ("on", True, (8, 0), None),
        ("off", True, (9, 0), "T5STUDY_KERNELS is off"),
        (None, False, (9, 0), "Triton is not installed"),
        (None, True, (7, 5), "compute capability 7.5 is below 8.0"),
    ],
)
def test_which_gpus_run_the_kernels(
    asked: str | None, triton: bool, found: tuple[int, int], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(gpu.SWITCH, raising=False)
    if asked is not None:
        monkeypatch.setenv(gpu.SWITCH, asked)
    monkeypatch.setattr(gpu, "has_triton", lambda: triton)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: found)
    assert gpu.why_not("cuda") == told
    line = gpu.told("cuda")
    assert line == ("arithmetic: Triton kernels" if told is None else f"arithmetic: torch's operators, since {told}")
    assert gpu.why_not("cpu") == "no GPU"
    assert gpu.told("cpu") is None


def test_a_switch_that_is_neither_on_nor_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpu.SWITCH, "yes")
    with pytest.raises(UserError, match="T5STUDY_KERNELS: found 'yes'; give on or off"):
        gpu.why_not("cuda")


@pytest.mark.parametrize(
    ("dtype", "columns", "longest", "shared", "block"),
    [
        (torch.bfloat16, 64, 512, 227, 64),
        (torch.bfloat16, 64, 20, 227, 32),
        (torch.bfloat16, 64, 1, 227, 16),
        (torch.bfloat16, 128, 512, 99, 32),
        (torch.float32, 64, 512, 227, 32),
        (torch.float32, 256, 512, 227, 16),
    ],
)
def test_blocks_fit_a_multiprocessor(dtype: torch.dtype, columns: int, longest: int, shared: int, block: int) -> None:
    assert flash.block_of(dtype, columns, longest, shared << 10) == block


def test_a_processor_keeps_its_own_way() -> None:
    model = build(SHAPES["v1.0"], seed=0)
    assert not flash.fits(model.embedding, torch.float32, 16)
    assert Pass.of(model.shape, model.arrange(BATCH), model.embedding).attention is attention


def test_large_tiles_are_few_and_hold_every_segment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = random_pairs(60, 30, 14, 384, seed=2)
    batch = rows_of([pairs[3 * i : 3 * i + 3] for i in range(20)], 94, 44)
    usual = arrange(batch)
    monkeypatch.setattr(gpu, "why_not", lambda _: None)
    large = arrange(batch)
    for name in ("encoder", "decoder", "cross"):
        few, many = getattr(large, name), getattr(usual, name)
        assert len(few) <= 6  # lengths from 1 to 30 halve five times
        for side in ("queries", "keys"):
            firsts = [
                sorted((int(f), int(n)) for t in tiles for f, n in zip(*_spans(t, side), strict=True))
                for tiles in (few, many)
            ]
            assert firsts[0] == firsts[1]


def _spans(tile: inputs.Tile, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    span = getattr(tile, side)
    return span.first_G, span.length_G


@pytest.mark.parametrize("architecture", ["encoder_decoder", "prefix_lm", "language_model"])
def test_inputs_move_in_one_copy(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the meta device in place of a GPU: all that is there arrives, in the same places, one tensor in two places as
    one."""
    model = of_family(f"{architecture} relu tied", seed=0)
    pairs = random_pairs(6, 20, 9, 384, seed=2)
    here = model.arrange(rows_of([pairs[:3], pairs[3:]], 70, 40))
    copies = []
    there = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *a, **k: (copies.append(x), there(x, *a, **k))[1])
    moved = inputs.moved(here, "meta")
    assert len(copies) == 1
    old, new = list(inputs._tensors(here)), list(inputs._tensors(moved))
    assert [x.shape for x in old] == [x.shape for x in new]
    assert {x.device.type for x in new} == {"meta"}
    assert len({id(x) for x in old}) == len({id(x) for x in new})
    assert inputs.moved(here, "cpu") is here
    assert (moved.rows, moved.every_key) == (here.rows, here.every_key)
