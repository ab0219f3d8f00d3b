"""T5X checkpoints -> a model: no flax, no JAX, nothing run.

    checkpoint_1000000/
      checkpoint                                          MessagePack: {version, optimizer: {target, state}}
      target.encoder.layers_0.attention.query.kernel/     zarr: .zarray (JSON) and chunks 0.0, 0.1, ...
      state.param_states. ...                             Adafactor's; not read

Small arrays lie in the MessagePack file itself, the others in folders beside it that it names; a checkpoint may also be
that one file alone. There is no configuration: the shape follows from the arrays, all but the kind of a gate, which
for every T5 that was published so is GELU.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t5study.ground.errors import UserError
from t5study.model.architectures import EncoderDecoder
from t5study.model.fitting import Weight, check, fill
from t5study.model.msgpack import SIZES, Packed, unpack
from t5study.model.names import t5x
from t5study.model.shapes import Shape
from t5study.model.untrusted import inside, json_object

CHECKPOINT = "checkpoint"
_TYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64", "uint16": "BF16"}
_ZARR_TYPES = {"<f4": "float32", "<f2": "float16", "<f8": "float64", "bfloat16": "bfloat16", "<u2": "uint16"}
_MOST_BYTES = 1 << 40
_MAPS = [bytes([first]) for first in (*range(0x80, 0x90), 0xDE, 0xDF)]


def is_t5x(place: Path) -> bool:
    """Whether a folder or a file looks like a T5X checkpoint."""
    file = place / CHECKPOINT if place.is_dir() else place
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        begin = opened.read(32)
    return begin[:1] in _MAPS and (b"version" in begin or b"optimizer" in begin)


def load_t5x(place: Path) -> tuple[EncoderDecoder, Shape]:
    """The model of a T5X checkpoint (a folder with a file `checkpoint`, or the file alone), in float32, and its shape.

    UserError, in one line, for what is damaged, is no T5, or lies in a form that is not read here.
    """
    folder, file = (place, place / CHECKPOINT) if place.is_dir() else (place.parent, place)
    try:
        tree = unpack(file.read_bytes())
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: found no T5X checkpoint ({error}); give a whole one") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    target = tree.get("optimizer", {}).get("target") if isinstance(tree, dict) else None
    if not isinstance(target, dict) or not target:
        raise UserError(f"{file}: found no weights at optimizer/target; give a T5X checkpoint")
    found = dict(_weights(folder, file, target, ""))
    shape = shape_of(file, found)
    with torch.device("meta"):
        sketch = dict(EncoderDecoder(shape).named_parameters())
    wanted = {t5x(name): _form(name, tuple(weight.shape)) for name, weight in sketch.items()}
    check(place, wanted, found, against="a T5 of their shape")
    model = EncoderDecoder(shape)
    turned = {name: Turned(found[t5x(name)]) if _form(name, (0, 1)) == (1, 0) else found[t5x(name)] for name in sketch}
    fill(model, {name: name for name in sketch}, turned)
    return model, shape


def shape_of(file: Path, found: Mapping[str, Weight], namer=t5x) -> Shape:
    """The shape that arrays have by their names: T5X's, or mesh's, which lie the same way."""

    def sides(name: str) -> tuple[int, int]:
        if namer(name) not in found:
            raise UserError(f"{file}: found no {namer(name)}; give a T5 (encoder and decoder)")
        form = found[namer(name)].shape
        if len(form) != 2 or 0 in form:
            raise UserError(f"{file}: {namer(name)}: found {len(form)} dimensions; a T5 has a matrix there")
        return form[0], form[1]

    def layers(stack: str) -> int:
        sides(f"{stack}.layers.0.attention.q")
        at = 0
        while namer(f"{stack}.layers.{at}.attention.q") in found:
            at += 1
        return at

    rows, d_model = sides("embedding")
    heads, _ = sides("encoder.bias")
    inner = sides("encoder.layers.0.attention.q")[1]
    if inner % heads:
        raise UserError(f"{file}: found {heads} heads of the relative bias for {inner} columns of q; give a T5")
    gated = namer("encoder.layers.0.feed.wi_0") in found
    return Shape(
        d_model=d_model,
        d_ff=sides("encoder.layers.0.feed.wo")[0],
        d_kv=inner // heads,
        heads=heads,
        encoder_layers=layers("encoder"),
        decoder_layers=layers("decoder"),
        table_rows=rows,
        activation="gated_gelu" if gated else "relu",
        tied=namer("head") not in found,
    )


def _form(name: str, form: tuple[int, ...]) -> tuple[int, ...]:
    """A weight's shape there: matrices lie the other way round, all but the embedding table."""
    return form if name == "embedding" or len(form) != 2 else form[::-1]


@dataclass(frozen=True)
class Turned:
    """A matrix that lies the other way round."""

    weight: Weight

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape[::-1]

    @property
    def type(self) -> str:
        return self.weight.type

    def read(self) -> Tensor:
        return self.weight.read().t()


@dataclass(frozen=True)
class InFile:
    """An array in the MessagePack file."""

    place: str
    packed: Packed

    @property
    def shape(self) -> tuple[int, ...]:
        return self.packed.shape

    @property
    def type(self) -> str:
        return _TYPES.get(self.packed.type, self.packed.type)

    def read(self) -> Tensor:
        return finite(self.place, numbers(self.packed.type, self.packed.content, self.shape))


@dataclass(frozen=True)
class InFolder:
    """A zarr array (version 2) in a folder of its own."""

    folder: Path
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    name: str
    compressor: str | None

    @property
    def type(self) -> str:
        return _TYPES.get(self.name, self.name)

    @staticmethod
    def of(folder: Path) -> InFolder:
        about = json_object(folder, ".zarray", {})
        path = folder / ".zarray"

        def field(name: str, known: Mapping[Any, Any] | tuple[Any, ...]) -> Any:
            value = about.get(name)
            if isinstance(value, dict | list) or value not in known:
                raise UserError(f"{path}: field {name}: found {value!r:.60}; known are {', '.join(map(str, known))}")
            return known[value] if isinstance(known, Mapping) else value

        field("zarr_format", (2,))
        field("order", ("C",))
        field("filters", (None,))
        shape, chunks = about.get("shape"), about.get("chunks")
        for name, sides in (("shape", shape), ("chunks", chunks)):
            if not isinstance(sides, list) or not all(type(side) is int and 0 < side < 1 << 32 for side in sides):
                raise UserError(f"{path}: field {name}: found {sides!r:.60}; an array has a list of whole numbers")
        assert isinstance(shape, list)
        assert isinstance(chunks, list)
        if len(chunks) != len(shape) or prod(shape) * 8 > _MOST_BYTES or prod(chunks) * 8 > _MOST_BYTES:
            raise UserError(f"{path}: found shape {shape} in chunks of {chunks}; no T5 has that")
        compressor = about.get("compressor")
        kind = compressor.get("id") if isinstance(compressor, dict) else compressor
        if kind not in (None, "gzip", "zlib", "zstd"):
            raise UserError(
                f"{path}: field compressor: found {kind!r}; gzip, zlib, zstd and none are read: write the checkpoint "
                "again with one of them"
            )
        return InFolder(folder, tuple(shape), tuple(chunks), field("dtype", _ZARR_TYPES), kind)

    def read(self) -> Tensor:
        whole = torch.empty(self.shape)
        for place in product(*(range(-(-side // chunk)) for side, chunk in zip(self.shape, self.chunks, strict=True))):
            cut = tuple(
                slice(i * chunk, min((i + 1) * chunk, side))
                for i, chunk, side in zip(place, self.chunks, self.shape, strict=True)
            )
            block = self._chunk(".".join(map(str, place)) or "0")
            whole[cut] = block[tuple(slice(0, one.stop - one.start) for one in cut)]
        return finite(str(self.folder), whole)

    def _chunk(self, name: str) -> Tensor:
        path = inside(self.folder, name, {})
        size = prod(self.chunks) * SIZES[self.name]
        content = path.read_bytes()
        try:
            content = _unpacked(content, self.compressor, size)
        except (zlib.error, ValueError) as error:
            raise UserError(f"{path}: found no whole chunk ({error}); copy the checkpoint again") from None
        if len(content) != size:
            raise UserError(f"{path}: found {len(content):,} bytes, a chunk has {size:,}; copy the checkpoint again")
        return numbers(self.name, content, self.chunks)


def _unpacked(content: bytes, compressor: str | None, size: int) -> bytes:
    """At most one byte more than there should be, whatever the file promises."""
    if compressor is None:
        return content
    if compressor == "zstd":
        import zstandard

        try:
            return zstandard.ZstdDecompressor().stream_reader(content).read(size + 1)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from None
    return zlib.decompressobj(31 if compressor == "gzip" else 15).decompress(content, size + 1)


def numbers(name: str, content: bytes | memoryview, shape: tuple[int, ...]) -> Tensor:
    """Little-endian numbers as float32. T5X before version 3 wrote bfloat16 as uint16."""
    if name in ("bfloat16", "uint16"):
        high = np.frombuffer(content, "<u2").astype(np.uint32) << 16
        return torch.from_numpy(high.view(np.float32)).reshape(shape)
    return torch.from_numpy(np.frombuffer(content, np.dtype(name).newbyteorder("<")).astype(np.float32)).reshape(shape)


def finite(place: str, tensor: Tensor) -> Tensor:
    """UserError where a number is not."""
    if bad := int((~torch.isfinite(tensor)).sum()):
        raise UserError(f"{place}: found {bad:,} numbers NaN or infinite; use other weights")
    return tensor


def _weights(folder: Path, file: Path, tree: Mapping[str, Any], under: str):
    """(path below target, array) for all that is there."""
    for name, value in tree.items():
        path = f"{under}{name}"
        if isinstance(value, Packed):
            yield path, InFile(f"{file}: {path}", value)
        elif isinstance(value, dict) and {"driver", "kvstore"} <= set(value):
            yield path, InFolder.of(_beside(folder, file, path, value))
        elif isinstance(value, dict):
            yield from _weights(folder, file, value, f"{path}/")
        else:
            raise UserError(f"{file}: {path}: found no array; give a T5X checkpoint")


def _beside(folder: Path, file: Path, path: str, spec: Mapping[str, Any]) -> Path:
    """The folder of an array: the last part of what the checkpoint calls it, which may not lead elsewhere."""
    store = spec["kvstore"]
    named = spec.get("path") or (store.get("path") if isinstance(store, dict) else None)
    if spec["driver"] != "zarr" or not isinstance(named, str):
        raise UserError(f"{file}: {path}: found a {spec['driver']!r:.40} array without a path; only zarr is read")
    name = named.rstrip("/").rpartition("/")[2]
    place = folder / name
    if name in ("", ".", "..") or "\0" in name or place.resolve().parent != folder.resolve():
        raise UserError(f"{file}: {path}: found the path {named[:60]!r}; arrays lie beside the file `checkpoint`")
    if not place.is_dir():
        raise UserError(f"{place}: no such folder, though {file} names it; copy the checkpoint again")
    return place
