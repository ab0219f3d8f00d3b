"""Commands that carry models in and out: import, export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from t5study.ground.errors import UserError


def bring(args: argparse.Namespace) -> None:
    """import: a Hugging Face folder or a T5X checkpoint -> a folder of ours."""
    from t5study.model import released
    from t5study.model.t5x import is_t5x, load_t5x
    from t5study.model.untrusted import may_run_code
    from t5study.vocab import load_vocab

    where: Path = args.where
    if not where.exists():
        raise UserError(f"{where}: no such file or folder; give a Hugging Face folder or a T5X checkpoint")
    facts: dict[str, Any]
    if is_t5x(where):
        if args.vocab is None:
            raise UserError(f"{where}: a T5X checkpoint holds no vocabulary; give --vocab FILE.model, or --vocab bytes")
        model, shape = load_t5x(where)
        vocab = load_vocab(args.vocab)
        released.check_vocab(shape, vocab)
        facts = {"imported from": "a T5X checkpoint"}
    else:
        if where.is_file():
            raise may_run_code(where)
        model, shape = released.load_released(where)
        vocab = released.load_vocab(where, shape, args.vocab)
        facts = {"imported from": "a Hugging Face folder", "weights there": f"xxh3 {released.digest(where)}"}
    _new(args.out)
    released.save_released(model, args.out, vocab.path, shard_bytes=args.max_shard_size, **facts)
    print(f"{args.out}: {sum(weight.numel() for weight in model.parameters()):,} parameters, {model.architecture}")


def export(args: argparse.Namespace) -> None:
    """export: a folder of ours (or any that import takes) -> the form that others read."""
    from t5study.ground.store import whole_folder
    from t5study.model import released

    _new(args.out)
    model, shape = released.load_released(args.checkpoint)
    vocab = released.load_vocab(args.checkpoint, shape, args.vocab)
    if args.format == "ctranslate2":
        from t5study.model.ctranslate import write_ctranslate

        with whole_folder(args.out) as work:
            write_ctranslate(model, work, vocab, weights=released.digest(args.checkpoint))
    else:
        facts = released.card_of(args.checkpoint)
        released.save_released(model, args.out, vocab.path, shard_bytes=args.max_shard_size, **facts)
    print(f"{args.out}: {args.format}, {sum(path.stat().st_size for path in args.out.iterdir()):,} bytes")


def _new(out: Path) -> None:
    if out.exists():
        raise UserError(f"{out}: exists already; delete it or choose another folder")
