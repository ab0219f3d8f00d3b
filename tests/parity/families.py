"""T5, T5 1.1, mT5, ByT5 and Flan-T5 in transformers' own classes, written and read by transformers alone.

    PYTHON families.py JOBS.json       run by another transformers than the tests': see test_families.py

Nothing of t5study is imported, so that any interpreter with transformers runs it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

ROWS = 384  # of the tables
SMALL: dict[str, Any] = {
    "d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 3, "num_layers": 2, "vocab_size": ROWS,
    "decoder_start_token_id": 0, "dropout_rate": 0.0,
}  # fmt: skip
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", SMALL),
    "t5 v1.1": ("T5", {**SMALL, **GATED}),
    "t5 gated, tied": ("T5", {**SMALL, "feed_forward_proj": "gated-gelu"}),
    "t5 relu, untied": ("T5", {**SMALL, "tie_word_embeddings": False}),
    "mt5": ("MT5", SMALL),
    "byt5": ("T5", {**SMALL, **GATED, "num_layers": 3, "num_decoder_layers": 1}),
}


def build(family: str) -> Any:
    """A model whose weights have the size that training leads to, and the head of its own that it was trained with,
    which transformers 5 gives to none."""
    kind, settings = FAMILIES[family]
    config = getattr(transformers, f"{kind}Config")(**settings)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    if settings.get("tie_word_embeddings") is False or kind == "MT5":
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * 0.3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "layer_norm" in name:
                weight.add_(torch.randn(weight.shape), alpha=0.3)
            elif name.endswith(".q.weight"):
                weight.mul_(4)
            elif "relative_attention_bias" in name:
                weight.mul_(3)
    return model


def logits(model: Any, source_BS: np.ndarray, target_BT: np.ndarray) -> np.ndarray:
    """Of the real target tokens, row after row. Padding is 0."""
    source, target = torch.from_numpy(source_BS).long(), torch.from_numpy(target_BT).long()
    with torch.no_grad():
        found = model(
            input_ids=source, attention_mask=(source != 0).long(), decoder_input_ids=model._shift_right(target)
        ).logits
    return found[target != 0].numpy()


def greedy(model: Any, source_BS: np.ndarray, length: int) -> list[list[int]]:
    """Ids without padding and EOS. Without the cache, which fails where the decoder is the deeper stack."""
    source = torch.from_numpy(source_BS).long()
    said = model.generate(
        input_ids=source, attention_mask=(source != 0).long(), max_new_tokens=length, do_sample=False, num_beams=1,
        use_cache=False,
    )  # fmt: skip
    return [[i for i in row if i > 1] for row in said[:, 1:].tolist()]


def read(folder: Path) -> Any:
    """A folder by the class that its config names."""
    kind = json.loads((folder / "config.json").read_text())["model_type"].upper()
    return getattr(transformers, f"{kind}ForConditionalGeneration").from_pretrained(folder).eval()


def main(jobs: dict[str, Any]) -> None:
    """{"write": {family: folder}, "read": {name: folder}, "rows": file}: fills the folders, answers beside them."""
    rows = np.load(jobs["rows"])
    source, target = rows["source"], rows["target"]
    for family, folder in jobs["write"].items():
        model = build(family)
        model.save_pretrained(folder, max_shard_size="20KB" if family == "mt5" else "1GB")
        if family == "byt5":
            transformers.ByT5Tokenizer().save_pretrained(folder)
        np.save(Path(folder) / "logits.npy", logits(model, source, target))
    said = {}
    for name, folder in jobs["read"].items():
        model = read(Path(folder))
        np.save(Path(folder) / "logits.npy", logits(model, source, target))
        said[name] = greedy(model, source, 12)
    Path(jobs["answers"]).write_text(json.dumps({"version": transformers.__version__, "answers": said}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
