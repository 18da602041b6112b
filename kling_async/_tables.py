"""Tables: the rows of what other libraries hold, recognised by public methods, and never imported.

Iterating over a table gives its columns, not its rows: `list(frame)` of a pandas table are the names of its columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from kling_async.errors import InvalidRequestError

_CONVERSIONS = ("to_dicts", "to_pylist")
"""Methods without arguments that give the rows.

Source: the references of `polars.DataFrame` and `pyarrow.Table`; `pyarrow.Array` gives its values.
"""


def rows_of(table: Any) -> Collection[Any] | None:
    """The rows of a table of pandas, Polars or PyArrow; None if the object is none of them.

    Raises:
        InvalidRequestError: The table cannot be read as rows.
    """
    for name in _CONVERSIONS:
        if hasattr(table, name):
            return list(getattr(table, name)())
    if hasattr(table, "collect_schema"):
        raise InvalidRequestError(
            f"A {type(table).__name__} has no rows before it is collected: give table.collect()."
        )
    if _is_frame(table):
        twice = [name for name, count in Counter(table.columns).items() if count > 1]
        if twice:
            raise InvalidRequestError(
                f"The table has more than one column {twice[0]!r}: rename or drop all but one."
            )
        return list(table.to_dict("records"))
    if _is_exchangeable(table) and not isinstance(table, Collection):
        raise InvalidRequestError(
            f"The rows of a {type(table).__name__} cannot be read: give pyarrow.table(table), or a list of its rows."
        )
    return None


def _is_exchangeable(table: object) -> bool:
    """Whether the object hands its data to other libraries, by Arrow's PyCapsule or the dataframe interchange protocol."""
    return hasattr(table, "__arrow_c_stream__") or hasattr(table, "__dataframe__")


def _is_frame(table: Any) -> bool:
    """Whether the object is a table as pandas makes it. Source: the reference of `pandas.DataFrame`."""
    return all(hasattr(table, name) for name in ("columns", "to_dict", "itertuples"))


def row_of(item: Any) -> Mapping[Any, Any] | None:
    """The row as a mapping, if the object has named values, as a mapping, a row of pandas or an `sqlite3.Row` has.

    Source: `dict()` takes an object with `keys` and `__getitem__` for a mapping.
    """
    if isinstance(item, Mapping):
        return item
    has_names = callable(getattr(item, "keys", None)) and hasattr(item, "__getitem__")
    if not has_names or hasattr(item, "columns"):
        return None
    return dict(item)
