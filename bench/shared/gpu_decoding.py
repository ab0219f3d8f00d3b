"""Contenders of bench/gpu.py that answer: transformers' generate, and t5study with its steps launched one by one and
recorded. All have the same weights, whose answers never end, and say exactly as many tokens as they may."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from shared.engines import talkative

Answering = tuple[Callable[[], list[list[int]]], Callable[[], str]]  # answers; what is to be said of how, afterwards


def sources(asked: Any) -> np.ndarray:
    case = asked.case
    ids_RS = np.random.default_rng(0).integers(3, case.shape.table_rows - 128, (case.rows, case.source))
    ids_RS[:, -1] = 1
    return ids_RS.astype(np.int32)


def _autocast(asked: Any) -> AbstractContextManager:
    return torch.autocast(asked.machine.device, torch.bfloat16, enabled=asked.machine.precision == "bf16")


def ours(asked: Any, *, recorded: bool) -> Answering:
    from t5study.decode.generate import generate
    from t5study.decode.graphs import AsItIs, Graphs
    from t5study.decode.methods import Beam, Greedy
    from t5study.decode.weights import ready

    case, source_RS = asked.case, sources(asked)
    with _autocast(asked):
        member = ready(talkative(case.shape).to(asked.machine.device), tensors=True)
    graphs = member.graphs or Graphs(AsItIs())
    member = replace(member, graphs=graphs if recorded else None)
    how = Greedy() if case.beams == 1 else Beam(case.beams, 0.6)

    def answers() -> list[list[int]]:
        with _autocast(asked):
            found = generate(member, source_RS, case.target, how, batch_rows=case.rows)
        return [answer.ids.tolist() for answer in found]

    def told() -> str:
        if not recorded:
            return "launched one by one"
        held, kind = graphs.held(), type(graphs.recorder).__name__
        buffers, within = held.buffers / 2**20, held.within / 2**20
        return f"{kind}, {held.recordings} recordings, {buffers:,.0f} MiB of buffers, {within:,.0f} MiB within steps"

    return answers, told


def launched(asked: Any) -> Answering:
    return ours(asked, recorded=False)


def recorded(asked: Any) -> Answering:
    return ours(asked, recorded=True)


def transformers(asked: Any) -> Answering:
    """In bf16 throughout, where that is asked for."""
    from transformers import T5Config, T5ForConditionalGeneration

    from t5study.model.names import published

    case, shape = asked.case, asked.case.shape
    config = T5Config(
        vocab_size=shape.table_rows, d_model=shape.d_model, d_kv=shape.d_kv, d_ff=shape.d_ff, num_heads=shape.heads,
        num_layers=shape.encoder_layers, num_decoder_layers=shape.decoder_layers, dropout_rate=0.0,
        decoder_start_token_id=0, attn_implementation="sdpa",
    )  # fmt: skip
    peer = T5ForConditionalGeneration(config).eval()
    theirs = dict(peer.named_parameters())
    with torch.no_grad():
        for name, weight in talkative(shape).named_parameters():
            theirs[published(name)].copy_(weight)
    kind = torch.bfloat16 if asked.machine.precision == "bf16" else torch.float32
    peer: Any = peer.to(asked.machine.device, kind)
    ids_RS = torch.from_numpy(sources(asked)).long().to(asked.machine.device)

    def answers() -> list[list[int]]:
        with torch.no_grad():
            said_RT = peer.generate(
                ids_RS, attention_mask=torch.ones_like(ids_RS), max_new_tokens=case.target, do_sample=False,
                num_beams=case.beams, length_penalty=0.6,
            )  # fmt: skip
        return said_RT[:, 1:].tolist()

    return answers, lambda: config._attn_implementation or ""
