"""Which rows of a table `--rows` means."""

import re
from collections.abc import Sequence

from deeplab_jax.errors import DeepLabError
from experiments.cases import Case


def select_rows(cases: Sequence[Case], text: str, points: int = 1) -> tuple[Case, ...]:
    """Returns the cases of the rows that a text names, in the table's order.

    Args:
      cases: of the table, those of a row one after the other.
      text: numbers of rows from 1, ranges, or parts of cases' labels, with commas between; `;`
        where a label has commas; empty: all.
      points: of the grid that crosses the rows, that many cases a row.

    Raises:
      DeepLabError: a part names no row.
    """
    if not text.strip():
        return tuple(cases)
    parts = text.split(";") if ";" in text else text.split(",")
    wanted = {index for part in parts for index in _indexes(cases, part.strip(), points)}
    return tuple(cases[index] for index in sorted(wanted))


def _indexes(cases: Sequence[Case], part: str, points: int) -> list[int]:
    numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        rows = len(cases) // points
        if not 1 <= first <= last <= rows:
            raise DeepLabError(f"--rows={part}: the table has rows 1 to {rows}")
        return list(range((first - 1) * points, last * points))
    found = [index for index, case in enumerate(cases) if part and part in case.row.label]
    if not found:
        labels = "; ".join(case.row.label for case in cases)
        raise DeepLabError(f"--rows: no label holds {part!r}; the rows are: {labels}")
    return found
