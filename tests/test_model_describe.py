"""model describe: as text and as JSON, mistakes in one line, and nothing of torch in it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from t5study.__main__ import main
from t5study.model.shapes import ARCHITECTURES, SIZES, parameters, shape_of

ROOT = Path(__file__).parents[1]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["model", "describe", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", [name for name, s in SIZES.items() if s.encoder_layers == s.decoder_layers])
def test_json_is_the_arithmetic(name: str, architecture: str, capsys: pytest.CaptureFixture[str]):
    found = json.loads(said(capsys, name, "--architecture", architecture, "--json"))
    assert found["parameters"]["total"] == parameters(shape_of(architecture, SIZES[name]), architecture)
    assert found["parameters"]["tuned"] == found["parameters"]["total"]
    assert found["flops"]["total"] == sum(n for part, n in found["flops"].items() if part != "total")
    assert found["pair"] == {"source": 512, "target": 114}


def test_text_for_people(capsys: pytest.CaptureFixture[str]):
    lines = {" ".join(line.split()) for line in said(capsys, "11b").splitlines()}
    assert {
        "parameters 11,307,321,344",
        "FLOPs to train on a pair of 512 and 114 tokens 22.769 TFLOP",
        "float32 45.23 GB",
        "Adafactor, float32 * 90.50 GB",
    } <= lines
    assert not any(line.startswith("that fine-tuning moves") for line in lines)
    adapted = said(capsys, "base", "--adapter", "32")
    assert "that fine-tuning moves" in adapted
    assert "1,245,696" in adapted  # 24 x (2 x 768 x 32 + 768) of adapters, 62 x 768 of norms


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["11c"], "size: found '11c'; did you mean 11b?"),
        (["base", "--architecture", "prefixlm"], "did you mean prefix_lm?"),
        (["byt5-small", "--architecture", "shared_encoder_decoder"], "decoder_layers: found 4 beside 12"),
        (["base", "--adapter", "-1"], "--adapter: found -1"),
    ],
)
def test_mistakes(words: list[str], told: str, capsys: pytest.CaptureFixture[str]):
    assert main(["model", "describe", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_eleven_billion_are_described_at_once():
    code = "import sys\nfrom t5study.__main__ import main\nmain(['model', 'describe', '11b'])\n"
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'numba')))"
    began = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "11,307,321,344" in done.stdout
    assert sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - began < 1  # processor seconds
