"""The kernels of flash_kernels.py against attention.py: forward, every gradient, in fp32 and bf16.

Without a GPU Triton's interpreter runs them, in a process of its own, since it is chosen when Triton is imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from little_models import SHAPES, random_pairs, rows_of

from t5study.model import flash, inputs
from t5study.model.architectures import arrange, build

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed here (extra: dev, on Linux)"
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
    biases = [row for row in found if row["what"] == "dbias" or row["what"].endswith(".bias")]
    assert len(biases) > 5


@needs_triton
def test_the_kernels_equal_the_definition_in_the_interpreter() -> None:
    held(rows(str(HERE / "flash_cases.py"), "interpreted"), cases=15)


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: the kernels ran in Triton's interpreter alone")
def test_the_kernels_equal_the_definition_on_the_gpu() -> None:
    held(rows(str(HERE / "flash_cases.py"), "cuda"), cases=23)


COMPILE = """
import json
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from t5study.model import flash_kernels as kernels

constants = dict(width=64, padded=64, B=64, exact="tf32", causal=True, biased=True, has_factor=True, has_prefix=True)
floats, places = ("factor", "diagonal", "lse", "delta", "sums"), ("q_first", "q_length", "k_first", "k_length", "prefix")
blocks = ("q", "k", "v", "out", "dout", "dq", "dk", "dv")
for kernel in (kernels.forward, kernels.backward_keys, kernels.backward_queries):
    kinds = {**dict.fromkeys(constants, "constexpr"), **dict.fromkeys(blocks, "*bf16"), **dict.fromkeys(floats, "*fp32"),
             **dict.fromkeys(places, "*i64")}
    signature = {p.name: kinds.get(p.name, "i32") for p in kernel.params}
    names = list(signature)
    even = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n][0] == "*" or "stride" in n}
    source = ASTSource(kernel, signature, constexprs=constants, attrs=even)
    made = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    print(json.dumps({"kernel": kernel.__name__, "shared": made.metadata.shared, "ptx": len(made.asm["ptx"]),
                      "atomic": "atom." in made.asm["ptx"] or "red." in made.asm["ptx"]}))
"""


@needs_triton
@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To machine code of compute capability 9.0 (H100, H200), within its shared memory, without atomic additions."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    found = rows("-c", COMPILE)
    assert [row["kernel"] for row in found] == ["forward", "backward_keys", "backward_queries"]
    for row in found:
        assert row["ptx"] > 10_000
        assert 0 < row["shared"] <= 227 << 10
        assert not row["atomic"], row


def test_a_processor_keeps_its_own_way() -> None:
    model = build(SHAPES["v1.0"], seed=0)
    assert not flash.fits(model.embedding, torch.float32, 16)
    assert not inputs.takes_large_tiles("cpu")


def test_large_tiles_are_few_and_hold_every_segment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = random_pairs(60, 30, 14, 384, seed=2)
    batch = rows_of([pairs[3 * i : 3 * i + 3] for i in range(20)], 94, 44)
    usual = arrange(batch)
    monkeypatch.setattr(inputs, "takes_large_tiles", lambda _: True)
    large = arrange(batch)
    for name in ("encoder", "decoder", "cross"):
        few, many = getattr(large, name), getattr(usual, name)
        assert len(few) <= 6  # lengths from 1 to 30 halve five times
        assert len(few) <= len(many)
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
    model = build(SHAPES["v1.0"], seed=0, architecture=architecture)
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
