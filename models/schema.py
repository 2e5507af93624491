"""A version's schema: which raw columns its graph takes, in which order."""

from typing import Final

import msgspec

from headrace.models.features import Column

NUMBERS: Final = "numbers"
CATEGORIES: Final = "categories"
PREDICTION: Final = "prediction"


class Schema(msgspec.Struct, frozen=True):
    """The inputs of an ONNX graph (see `session`), by kind and in order."""

    columns: tuple[Column, ...]

    @property
    def numbers(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.kind == "number")

    @property
    def categories(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.kind == "category")

    @property
    def tensors(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.kind == "tensor")
