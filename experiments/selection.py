"""Selection of the rows of a table by `--rows`."""

import re
from collections.abc import Sequence

from deeplab_jax.errors import DeepLabError
from experiments.cases import Case


def select_rows(cases: Sequence[Case], text: str, points: int = 1) -> tuple[Case, ...]:
    """Returns the cases that a text selects, in the order of the table.

    Args:
      cases: cases of the table; the cases of one row are adjacent.
      text: row numbers from 1, ranges such as 3-5, or parts of labels; separated by commas, or by
        `;` if one of several parts contains commas. Empty: all cases.
      points: number of cases per row (default: 1). With --grid, each row has one case for each
        combination of the values in --grid.

    Raises:
      DeepLabError: a part of the text selects no row.
    """
    if not text.strip():
        return tuple(cases)
    # A label may contain commas, as in `rates 6, 12, 18`; a list of numbers is never a label.
    is_label = re.search(r"[^\d\s,-]", text) and any(text.strip() in c.row.label for c in cases)
    parts = text.split(";") if ";" in text or is_label else text.split(",")
    wanted = {index for part in parts for index in _indexes(cases, part.strip(), points)}
    return tuple(cases[index] for index in sorted(wanted))


def _indexes(cases: Sequence[Case], part: str, points: int) -> list[int]:
    numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
    if numbers:
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        rows = len(cases) // points
        if not 1 <= first <= last <= rows:
            raise DeepLabError(f"--rows={part} is not legal; the table has rows 1 to {rows}")
        return list(range((first - 1) * points, last * points))
    found = [index for index, case in enumerate(cases) if part and part in case.row.label]
    if not found:
        labels = "; ".join(case.row.label for case in cases)
        raise DeepLabError(f"--rows: no label contains {part!r}; the rows are: {labels}")
    return found
