"""train memory: its numbers are the plan's, as text and as JSON; mistakes in one line."""

from __future__ import annotations

import json

import pytest

from t5study.__main__ import main
from t5study.model.scale import Hardware, Layout, plan
from t5study.model.shapes import size


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["train", "memory", *words]) == 0
    return capsys.readouterr().out


def test_json_is_the_plan(capsys: pytest.CaptureFixture[str]):
    words = ("--size", "3b", "--gpus", "8", "64", "--shard", "8", "--recompute", "--peak-tflops", "100", "--json")
    for found, gpus in zip(json.loads(said(capsys, *words)), (8, 64), strict=True):
        layout, hardware = Layout(gpus, 8, 4, recompute=True), Hardware(peak=100e12)
        expected = plan(size("3b"), "encoder_decoder", layout, hardware)
        assert (found["gpus"], found["shard"]) == (gpus, 8)
        assert found["memory"] == {**vars(expected.memory), "total": expected.memory.total}
        assert found["traffic"] == vars(expected.traffic)
        assert found["tokens_per_second"] == {"overlapped": expected.overlapped, "in_turn": expected.in_turn}


def test_slices_are_asked_for(capsys: pytest.CaptureFixture[str]):
    words = ("--size", "3b", "--gpus", "16", "--tensor", "8")
    (found,) = json.loads(said(capsys, *words, "--json"))
    expected = plan(size("3b"), "encoder_decoder", Layout(16, 0, 4, tensor=8))
    assert (found["shard"], found["tensor"], found["traffic"]) == (0, 8, vars(expected.traffic))
    told = said(capsys, *words)
    assert "on each group of 8" in told
    assert [line.split()[:2] for line in told.splitlines() if line.split()[:1] == ["16"]] == [["16", "8"]]


def test_what_fits_is_said(capsys: pytest.CaptureFixture[str]):
    words = ("--gpus", "8", "512", "--recompute", "--device-memory")
    assert [each["fits"] for each in json.loads(said(capsys, *words, "10", "--json"))] == [False, True]
    rows = [line.split() for line in said(capsys, *words, "10").splitlines() if line.split()[:1] in (["8"], ["512"])]
    assert [(row[1], row[9]) for row in rows] == [("8", "no"), ("512", "yes")]


def test_one_gpu_has_all_weights(capsys: pytest.CaptureFixture[str]):
    (found,) = json.loads(said(capsys, "--gpus", "1", "--json"))
    assert (found["shard"], found["memory"]["weights"]) == (0, 4 * size("11b").parameters)
    assert sum(found["traffic"].values()) == 0


def test_eleven_billion_on_one(capsys: pytest.CaptureFixture[str]):
    """The recipe of docs/performance.md, GB: 22.61 of weights, 0.27 of one sub-layer's gradients, 0.05 of state; 8 rows
    kept 47.7, made again 2.4. So it fits made again, and kept as well; in fp32 without any of it, it does not."""
    one = ("--gpus", "1", "--micro-batch", "8", "--json")
    small = ("--weights", "bf16", "--update-in-backward")
    again, kept, plain = (
        json.loads(said(capsys, *one, *more))[0] for more in ((*small, "--recompute"), small, ("--optimizer", "adamw"))
    )
    gb = {name: round(n / 1e9, 2) for name, n in again["memory"].items()}
    assert (gb["weights"], gb["gradients"], gb["state"]) == (22.61, 0.27, 0.05)
    assert (round(again["memory"]["activations"] / 1e9, 1), round(kept["memory"]["activations"] / 1e9, 1)) == (
        2.4,
        47.7,
    )
    assert (again["fits"], kept["fits"], plain["fits"]) == (True, True, False)


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "memory", "--gpus", "6", "--shard", "4"]) == 2
    assert capsys.readouterr().err == (
        "t5study: error: layout: shard: found 4 for 6 ranks; give a number that divides them\n"
    )
    for words, told in (
        (("--gpus", "8", "--tensor", "3"), "tensor: found 3 for 8 ranks; give a number that divides them"),
        (("--gpus", "8", "--tensor", "8", "--shard", "8"), "found --tensor with --shard; leave one of them out"),
        (("--gpus", "64", "--tensor", "64", "--size", "3b"), "tensor: found 64 ranks for a model of heads 32"),
        (("--gpus", "8", "--weights", "bf16"), "ranks: found 8 with bf16 weights"),
        (("--gpus", "8", "--update-in-backward"), "ranks: found 8 with updates in the backward pass"),
        (
            ("--gpus", "1", "--update-in-backward", "--passes", "2"),
            "found updates in the backward pass with micro-batches",
        ),
    ):
        assert main(["train", "memory", *words]) == 2
        err = capsys.readouterr().err
        assert told in err
        assert err.count("\n") == 1
