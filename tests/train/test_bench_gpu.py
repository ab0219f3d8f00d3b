"""bench/gpu.py: refused in one line without a GPU; at a tiny shape the same code runs on the CPU to its end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "bench" / "gpu.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_one_line():
    done = bench("base")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "bench: torch sees no GPU here; give --tiny to run the same code on the CPU\n"


@pytest.mark.slow
def test_a_tiny_shape_runs_on_the_cpu():
    done = bench("--tiny")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"tokens/s +[\d.]+ x +\d+ % of peak +[\d,]+ MiB  attention: ", done.stdout)) == 2
    assert "attention: sdpa" in done.stdout
    assert "attention: t5study.model.attention" in done.stdout
    assert "scaled_dot_product" in done.stdout
    assert len(re.findall(r"tokens/s +[\d.]+ x +100 % as the first +[\d,]+ MiB  how: ", done.stdout)) == 3
    assert "how: AsItIs, 3 recordings" in done.stdout
    assert done.stdout.count("most time: ") == 5
