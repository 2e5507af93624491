"""schemas of served rows, oldest first → the one schema that they are joined in, and what each of them lacks.

Declarations change while rows stay: a column that changed its type keeps the newest one, and is missing before.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import pyarrow as pa


@dataclass(frozen=True)
class Union:
    schema: pa.Schema

    @classmethod
    def of(cls, schemas: Iterable[pa.Schema]) -> Self:
        newest = {field.name: field for schema in schemas for field in schema}
        return cls(pa.schema(list(newest.values())))

    def lacking(self, schema: pa.Schema) -> list[str]:
        """Columns that rows of this schema have not, or with another type."""
        return [field.name for field in self.schema if not _has(schema, field)]

    def fitted(self, table: pa.Table) -> pa.Table:
        """The same rows with all columns; those that they lack are null."""
        arrays = [
            table[field.name] if _has(table.schema, field) else pa.nulls(len(table), field.type)
            for field in self.schema
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def _has(schema: pa.Schema, field: pa.Field) -> bool:
    at = schema.get_field_index(field.name)
    return bool(at >= 0 and schema.field(at) == field)
