"""Do these weights fit this model? Names, shapes and types, before a number is read; copies, once they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from t5study.ground.errors import UserError

NUMBERS = ("F32", "F16", "BF16", "F64")  # types whose values become float32


class Weight(Protocol):
    """A tensor on disk, not yet read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def type(self) -> str:
        """As safetensors spells it: F32, BF16, I64 ..."""
        ...

    def read(self) -> Tensor:
        """Its numbers as float32, all finite. UserError where one is not."""
        ...


def check(
    place: Path,
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, Weight],
    passed: Iterable[str] = (),
    against: str = "config.json",
) -> None:
    """UserError, in one line, if what is found is not what is wanted. passed: names that may be there and are read
    past. against: where what is wanted was read."""
    known = {*wanted, *passed}
    shapes = {
        name: f"found {_by(found[name].shape)}, needs {_by(form)}"
        for name, form in wanted.items()
        if name in found and found[name].shape != form
    }
    types = {name: f"found {found[name].type}" for name in wanted if name in found and found[name].type not in NUMBERS}
    wrong = [
        _several("missing", [name for name in wanted if name not in found]),
        _several("unknown", sorted(name for name in found if name not in known)),
        _several("of another shape", [f"{name}: {told}" for name, told in shapes.items()]),
        _several("of a type that is no floating-point number", [f"{name}: {told}" for name, told in types.items()]),
    ]
    if any(wrong):
        raise UserError(
            f"{place}: the weights do not fit {against}: {'; '.join(filter(None, wrong))}; "
            "write or download the folder again"
        )


def fill(model: nn.Module, names: Mapping[str, str], found: Mapping[str, Weight]) -> None:
    """Reads every weight of the model. names: what each is called where it is found."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(found[names[name]].read())


def check_copies(place: Path, copies: Mapping[str, str], found: Mapping[str, Weight]) -> None:
    """UserError if a weight that is there twice has two values: readers would disagree about what the model is
    (transformers 4 drops the head of a tied model, transformers 5 keeps it). copies: the second name -> the first."""
    for copy, name in copies.items():
        if not torch.equal(found[copy].read(), found[name].read()):
            hint = (
                "; set tie_word_embeddings and scale_decoder_outputs to false in config.json if this is a v1.1 model"
                if copy == "lm_head.weight"
                else ""
            )
            raise UserError(f"{place}: {copy} differs from {name}, and in this model the two are one{hint}")


def _by(form: tuple[int, ...]) -> str:
    return "x".join(map(str, form))


def _several(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} {what} ({', '.join(names[:3])}{more})" if names else ""
