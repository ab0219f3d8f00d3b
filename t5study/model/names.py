"""What a weight of ours is called elsewhere: in Hugging Face's layout, in T5X's, in mesh TensorFlow's.

    ours            encoder.layers.3.attention.q
    Hugging Face    encoder.block.3.layer.0.SelfAttention.q.weight
    T5X             encoder/layers_3/attention/query/kernel
    mesh            encoder/block_003/layer_000/SelfAttention/q

Hugging Face stores matrices as we do, (columns out, columns in). T5X and mesh store each the other way round, the
tables of the relative bias too; only the embedding table, (V, D), lies in all of them the same way.
"""

from __future__ import annotations

from collections.abc import Callable

# Hugging Face's stray key of old files: the table that old code made in the first cross-attention, and no T5 uses.
STRAY = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of shared.weight


def published(name: str) -> str:
    """The name in Hugging Face's layout.

    >>> published("encoder.layers.3.attention.q"), published("decoder.layers.0.feed.wi_1")
    ('encoder.block.3.layer.0.SelfAttention.q.weight', 'decoder.block.0.layer.2.DenseReluDense.wi_1.weight')
    >>> published("decoder.layers.1.cross.norm"), published("decoder.norm"), published("embedding")
    ('decoder.block.1.layer.1.layer_norm.weight', 'decoder.final_layer_norm.weight', 'shared.weight')
    """
    if name in ("embedding", "head"):
        return {"embedding": "shared.weight", "head": "lm_head.weight"}[name]
    stack, _, rest = name.partition(".")
    if rest == "norm":
        return f"{stack}.final_layer_norm.weight"
    if rest == "bias":
        return f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    _, layer, part, matrix = rest.split(".")
    place, title = _place(stack, part)
    if matrix == "norm":
        return f"{stack}.block.{layer}.layer.{place}.layer_norm.weight"
    return f"{stack}.block.{layer}.layer.{place}.{title}.{'o' if matrix == 'out' else matrix}.weight"


def t5x(name: str) -> str:
    """The path in a T5X checkpoint, below `target`.

    >>> t5x("encoder.layers.3.attention.q"), t5x("decoder.layers.0.attention.norm")
    ('encoder/layers_3/attention/query/kernel', 'decoder/layers_0/pre_self_attention_layer_norm/scale')
    >>> t5x("decoder.layers.1.cross.out"), t5x("encoder.layers.0.feed.wi_0")
    ('decoder/layers_1/encoder_decoder_attention/out/kernel', 'encoder/layers_0/mlp/wi_0/kernel')
    """
    if name in ("embedding", "head"):
        return {"embedding": "token_embedder/embedding", "head": "decoder/logits_dense/kernel"}[name]
    stack, _, rest = name.partition(".")
    if rest == "norm":
        return f"{stack}/{stack}_norm/scale"
    if rest == "bias":
        return f"{stack}/relpos_bias/rel_embedding"
    _, layer, part, matrix = rest.split(".")
    own = "attention" if stack == "encoder" else "self_attention"
    title, norm = {
        "attention": (own, own),
        "cross": ("encoder_decoder_attention", "cross_attention"),
        "feed": ("mlp", "mlp"),
    }[part]
    if matrix == "norm":
        return f"{stack}/layers_{layer}/pre_{norm}_layer_norm/scale"
    long = {"q": "query", "k": "key", "v": "value"}.get(matrix, matrix)
    return f"{stack}/layers_{layer}/{title}/{long}/kernel"


def mesh(name: str, norm: str = "rms_norm") -> str:
    """The variable in a mesh TensorFlow checkpoint. norm: "rms_norm" or, in older ones, "layer_norm".

    >>> mesh("encoder.layers.3.attention.q"), mesh("decoder.layers.0.feed.wo")
    ('encoder/block_003/layer_000/SelfAttention/q', 'decoder/block_000/layer_002/DenseReluDense/wo/kernel')
    >>> mesh("decoder.norm"), mesh("decoder.norm", "layer_norm")
    ('decoder/rms_norm/scale', 'decoder/final_layer_norm/scale')
    """
    if name in ("embedding", "head"):
        return {"embedding": "shared/embedding", "head": "decoder/logits/kernel"}[name]
    stack, _, rest = name.partition(".")
    if rest == "norm":
        return f"{stack}/{norm if norm == 'rms_norm' else 'final_layer_norm'}/scale"
    if rest == "bias":
        return f"{stack}/block_000/layer_000/SelfAttention/relative_attention_bias"
    _, layer, part, matrix = rest.split(".")
    place, title = _place(stack, part)
    here = f"{stack}/block_{int(layer):03d}/layer_{place:03d}"
    if matrix == "norm":
        return f"{here}/{norm}/scale"
    return f"{here}/{title}/{matrix}/kernel" if part == "feed" else f"{here}/{title}/{matrix.replace('out', 'o')}"


def _place(stack: str, part: str) -> tuple[int, str]:
    """The number of a sub-layer in its block, and its name."""
    return {
        "attention": (0, "SelfAttention"),
        "cross": (1, "EncDecAttention"),
        "feed": (1 if stack == "encoder" else 2, "DenseReluDense"),
    }[part]


Namer = Callable[[str], str]
