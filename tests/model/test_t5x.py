"""T5X checkpoints: the official tiny one, ones with arrays in folders beside, and every way they can be wrong."""

from __future__ import annotations

import gzip
import json
import pickle
import struct
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared_data import SHARED

from t5study.ground.errors import UserError
from t5study.model.architectures import EncoderDecoder, build
from t5study.model.msgpack import Packed, unpack
from t5study.model.shapes import Shape
from t5study.model.t5x import is_t5x, load_t5x

V1_0 = Shape(16, 24, 4, 2, 2, 1, 384)
V1_1 = Shape(16, 24, 4, 2, 1, 2, 384, "gated_gelu", tied=False)


# --- MessagePack, written for the tests ---------------------------------------------------------------------------


def pack(value: Any) -> bytes:
    """By the specification, in its longest forms; arrays as flax has them."""
    match value:
        case dict():
            items = b"".join(pack(name) + pack(item) for name, item in value.items())
            return b"\xdf" + struct.pack(">I", len(value)) + items
        case list() | tuple():
            return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
        case str():
            return b"\xdb" + struct.pack(">I", len(value.encode())) + value.encode()
        case bytes():
            return b"\xc6" + struct.pack(">I", len(value)) + value
        case bool() | None:
            return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        case int():
            return b"\xd3" + struct.pack(">q", value)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case np.ndarray():
            return extension(1, pack([list(value.shape), value.dtype.name, value.tobytes()]))
    raise TypeError(value)


def extension(code: int, content: bytes) -> bytes:
    return b"\xc9" + struct.pack(">Ib", len(content), code) + content


# --- checkpoints, written for the tests ---------------------------------------------------------------------------


def tree_of(model: EncoderDecoder) -> dict[str, Any]:
    """A model's weights under T5X's names, written out here apart from the reader's, so that one checks the other."""
    w = {name: weight.detach().numpy() for name, weight in model.named_parameters()}
    shape = model.shape
    tree: dict[str, Any] = {"token_embedder": {"embedding": w["embedding"]}}

    def attention(at: str) -> dict[str, Any]:
        names = {"query": "q", "key": "k", "value": "v", "out": "out"}
        return {there: {"kernel": w[f"{at}.{ours}"].T} for there, ours in names.items()}

    for stack, layers in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers)):
        tree[stack] = {f"{stack}_norm": {"scale": w[f"{stack}.norm"]}}
        tree[stack]["relpos_bias"] = {"rel_embedding": w[f"{stack}.bias"].T}
        own = "attention" if stack == "encoder" else "self_attention"
        for i in range(layers):
            at = f"{stack}.layers.{i}"
            matrices = ("wi_0", "wi_1", "wo") if shape.activation == "gated_gelu" else ("wi", "wo")
            layer = {
                own: attention(f"{at}.attention"),
                f"pre_{own}_layer_norm": {"scale": w[f"{at}.attention.norm"]},
                "mlp": {matrix: {"kernel": w[f"{at}.feed.{matrix}"].T} for matrix in matrices},
                "pre_mlp_layer_norm": {"scale": w[f"{at}.feed.norm"]},
            }
            if stack == "decoder":
                layer["encoder_decoder_attention"] = attention(f"{at}.cross")
                layer["pre_cross_attention_layer_norm"] = {"scale": w[f"{at}.cross.norm"]}
            tree[stack][f"layers_{i}"] = layer
    if not shape.tied:
        tree["decoder"]["logits_dense"] = {"kernel": w["head"].T}
    return tree


def write_zarr(folder: Path, array: np.ndarray, chunks: list[int], compressor: str | None = "gzip") -> None:
    """A zarr array, version 2: chunks of one size, those at the edge padded."""
    folder.mkdir()
    squeeze = {"gzip": gzip.compress, "zlib": zlib.compress, None: bytes, "zstd": _zstd}[compressor]
    about = {
        "zarr_format": 2, "shape": list(array.shape), "chunks": chunks, "dtype": array.dtype.str, "order": "C",
        "fill_value": None, "filters": None, "compressor": compressor and {"id": compressor, "level": 1},
    }  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(about))
    for place in product(*(range(-(-side // chunk)) for side, chunk in zip(array.shape, chunks, strict=True))):
        block = np.zeros(chunks, array.dtype)
        part = array[tuple(slice(i * chunk, (i + 1) * chunk) for i, chunk in zip(place, chunks, strict=True))]
        block[tuple(slice(0, side) for side in part.shape)] = part
        (folder / ".".join(map(str, place))).write_bytes(squeeze(block.tobytes()))


def _zstd(content: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(content)


def write_checkpoint(folder: Path, model: EncoderDecoder, compressor: str | None = "gzip", outside: int = 1000) -> Path:
    """As T5X writes one: arrays of more than `outside` bytes in folders, in chunks of 7 rows and 5 columns."""

    def put(tree: dict[str, Any], under: str) -> dict[str, Any]:
        written = {}
        for name, value in tree.items():
            if isinstance(value, dict):
                written[name] = put(value, f"{under}.{name}")
            elif value.nbytes <= outside:
                written[name] = np.ascontiguousarray(value)
            else:
                write_zarr(folder / f"{under}.{name}", value, [7, 5], compressor)
                store = {"driver": "file", "path": f"{under}.{name}/"}
                written[name] = {"driver": "zarr", "dtype": "float32", "kvstore": store, "metadata": {}}
        return written

    folder.mkdir()
    target = put(tree_of(model), "target")
    content = {"version": 3, "optimizer": {"target": target, "state": {"step": np.array(7, np.int32)}}}
    (folder / "checkpoint").write_bytes(pack(content))
    return folder


def _equal(one: EncoderDecoder, other: EncoderDecoder) -> None:
    weights = dict(other.named_parameters())
    assert weights.keys() == dict(one.named_parameters()).keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in one.named_parameters())


# --- what is read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressor", ["gzip", "zlib", "zstd", None])
@pytest.mark.parametrize("shape", [V1_0, V1_1], ids=["v1.0", "v1.1"])
def test_arrays_in_the_file_and_in_folders(tmp_path: Path, shape: Shape, compressor: str | None):
    model = build(shape, 3)
    folder = write_checkpoint(tmp_path / "checkpoint_7", model, compressor)
    assert (folder / "target.encoder.layers_0.mlp.wo.kernel" / "0.0").is_file()
    assert is_t5x(folder)
    found, told = load_t5x(folder)
    assert told == shape
    _equal(model, found)


def test_one_file_alone(tmp_path: Path):
    model = build(V1_1, 4)
    folder = write_checkpoint(tmp_path / "c", model, outside=1 << 30)
    assert [path.name for path in folder.iterdir()] == ["checkpoint"]
    (folder / "checkpoint").rename(tmp_path / "alone")
    assert is_t5x(tmp_path / "alone")
    _equal(model, load_t5x(tmp_path / "alone")[0])


@pytest.mark.skipif(SHARED is None, reason="needs the official tiny checkpoint")
def test_the_official_tiny_checkpoint():
    """Its arrays by plain look-up in the file, and the model's weights beside them."""
    assert SHARED is not None
    path = SHARED / "checkpoint" / "t5x_tiny" / "test_t5_tiny.checkpoint_0"
    model, shape = load_t5x(path)
    assert shape == Shape(8, 16, 3, 4, 2, 2, 32_128, "gated_gelu", tied=False)
    tree = unpack(path.read_bytes())["optimizer"]["target"]

    def there(*names: str) -> torch.Tensor:
        at = tree
        for name in names:
            at = at[name]
        return torch.from_numpy(np.frombuffer(at.content, np.float32).reshape(at.shape).copy())

    w = dict(model.named_parameters())
    assert torch.equal(w["embedding"], there("token_embedder", "embedding"))
    assert torch.equal(w["head"], there("decoder", "logits_dense", "kernel").T)
    assert torch.equal(w["decoder.bias"], there("decoder", "relpos_bias", "rel_embedding").T)
    assert torch.equal(
        w["decoder.layers.1.cross.out"], there("decoder", "layers_1", "encoder_decoder_attention", "out", "kernel").T
    )
    assert torch.equal(w["encoder.layers.1.feed.wi_1"], there("encoder", "layers_1", "mlp", "wi_1", "kernel").T)
    assert w["embedding"].std() > 0.1


def test_bfloat16_is_read_whichever_way_it_was_written(tmp_path: Path):
    numbers = torch.randn(9, 4).bfloat16()
    raw = numbers.view(torch.int16).numpy().view(np.uint16)
    from t5study.model.t5x import InFile, InFolder

    packed = Packed((9, 4), "bfloat16", memoryview(raw.tobytes()))
    assert torch.equal(InFile("x", packed).read(), numbers.float())
    write_zarr(tmp_path / "v2", raw, [4, 4])
    assert torch.equal(InFolder.of(tmp_path / "v2").read(), numbers.float())
    about = json.loads((tmp_path / "v2" / ".zarray").read_text()) | {"dtype": "bfloat16"}
    (tmp_path / "v2" / ".zarray").write_text(json.dumps(about))
    assert torch.equal(InFolder.of(tmp_path / "v2").read(), numbers.float())


def test_what_tensorstore_writes(tmp_path: Path):
    """The library that T5X itself writes with."""
    tensorstore = pytest.importorskip("tensorstore")
    from t5study.model.t5x import InFolder

    array = np.random.default_rng(0).normal(size=(11, 6)).astype(np.float32)
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": f"{tmp_path}/a/"},
        "metadata": {"shape": [11, 6], "chunks": [4, 6], "dtype": "<f4", "compressor": {"id": "gzip", "level": 1}},
    }
    tensorstore.open(spec, create=True).result().write(array).result()
    assert np.array_equal(InFolder.of(tmp_path / "a").read().numpy(), array)


# --- what is refused ----------------------------------------------------------------------------------------------


def _refused(place: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_t5x(place)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        pickle.dumps({"a": 1}),
        pack({"version": 3}),
        pack({"optimizer": {"target": {}}}),
        pack({"optimizer": {"target": {"a": 1}}}),
        pack([1]),
        pack({"optimizer": 1})[:-2],
        pack({"a": 1}) + b"\0",
        b"\x91" * 100_000,
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        extension(7, b"os.system"),
        extension(1, pack([[2, 2], "float32", b"\0" * 8])),
        extension(1, pack([[-2, -2], "float32", b"\0" * 16])),
        extension(1, pack([[1 << 40, 1 << 40], "float32", b"\0" * 16])),
        extension(1, pack([[2], "object", b"\0" * 16])),
        extension(1, pack("text")),
        b"\x81\xc4\x01a\x01",
        b"\x82\xa1a\x01\xa1a\x02",
    ],
)
def test_files_that_are_no_checkpoint(tmp_path: Path, content: bytes):
    (tmp_path / "checkpoint").write_bytes(content)
    assert "checkpoint" in _refused(tmp_path)


def _tree(folder: Path) -> dict[str, Any]:
    return unpack((folder / "checkpoint").read_bytes())


def _array(folder: Path) -> Path:
    return folder / "target.encoder.layers_0.mlp.wo.kernel"


def _about(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = _array(folder) / ".zarray"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def _bomb(folder: Path) -> None:
    (_array(folder) / "0.0").write_bytes(gzip.compress(bytes(1 << 26)))


def _link(folder: Path) -> None:
    (_array(folder) / "0.0").unlink()
    (_array(folder) / "0.0").symlink_to("/etc/passwd")


def _link_folder(folder: Path) -> None:
    _array(folder).rename(folder.parent / "elsewhere")
    _array(folder).symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda folder: (_array(folder) / "0.0").unlink(), "0.0: no such file"),
        (lambda folder: (_array(folder) / "0.0").write_bytes(b"text"), "found no whole chunk"),
        (lambda folder: (_array(folder) / "0.0").write_bytes(gzip.compress(b"few")), "found 3 bytes, a chunk has 140"),
        (_bomb, "found 141 bytes, a chunk has 140"),
        (_link, "leads out of the folder"),
        (_link_folder, "arrays lie beside the file"),
        (lambda folder: (_array(folder) / ".zarray").write_text("{"), ".zarray: found damaged JSON"),
        (lambda folder: (_array(folder) / ".zarray").unlink(), ".zarray: no such file"),
        (_about(dtype="|O"), "field dtype: found '|O'"),
        (_about(dtype=[["a", "<f4"]]), "field dtype"),
        (_about(compressor={"id": "blosc"}), "field compressor: found 'blosc'; gzip"),
        (_about(shape=[1 << 31, 1 << 31]), "no T5 has that"),
        (_about(shape=[24]), "no T5 has that"),
        (_about(shape=[24, -1]), "field shape"),
        (_about(chunks=[0, 5]), "field chunks"),
        (_about(order="F"), "field order"),
        (_about(zarr_format=3), "field zarr_format"),
        (_about(shape=[23, 16]), "of another shape"),
    ],
)
def test_arrays_that_lie(tmp_path: Path, edit: Callable[[Path], None], says: str):
    folder = write_checkpoint(tmp_path / "c", build(V1_0, 0))
    edit(folder)
    assert says in _refused(folder)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda target: target["encoder"].pop("relpos_bias"), "found no encoder/relpos_bias/rel_embedding"),
        (lambda target: target["encoder"]["layers_0"]["mlp"].pop("wi"), "1 missing (encoder/layers_0/mlp/wi/kernel)"),
        (lambda target: target["decoder"].update(more={"x": np.zeros(1, np.float32)}), "1 unknown (decoder/more/x)"),
        (lambda target: target["decoder"].pop("layers_0"), "found no decoder/layers_0/self_attention/query/kernel"),
        (
            lambda target: target["decoder"]["decoder_norm"].update(scale=np.full(16, np.nan, np.float32)),
            "16 numbers NaN or infinite",
        ),
        (lambda target: target["decoder"]["decoder_norm"].update(scale=np.ones(16, np.int32)), "found int32"),
        (
            lambda target: target["encoder"]["relpos_bias"].update(rel_embedding=np.ones((3, 32), np.float32)),
            "3 heads of the relative bias for 8 columns",
        ),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, edit: Callable[[dict[str, Any]], Any], says: str):
    tree = tree_of(build(V1_0, 0))
    edit(tree)
    (tmp_path / "checkpoint").write_bytes(pack({"optimizer": {"target": _whole(tree)}}))
    assert says in _refused(tmp_path)


def _whole(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _whole(value) if isinstance(value, dict) else np.ascontiguousarray(value) for name, value in tree.items()
    }


@pytest.mark.parametrize("path", ["../outside", "..", "/etc", "", "a\0b", "nowhere"])
def test_paths_may_not_lead_away(tmp_path: Path, path: str):
    folder = write_checkpoint(tmp_path / "c", build(V1_0, 0))
    write_zarr(tmp_path / "outside", np.zeros((24, 16), np.float32), [24, 16])
    content = (folder / "checkpoint").read_bytes()
    old = pack("target.encoder.layers_0.mlp.wo.kernel/")
    assert content.count(old) == 1
    (folder / "checkpoint").write_bytes(content.replace(old, pack(path)))
    message = _refused(folder)
    assert "arrays lie beside" in message or "no such folder" in message or "without a path" in message
