"""Finds tables by name (in `experiments/tables`) or by the path of a Python file."""

import importlib.util
import pathlib

from deeplab_jax.errors import DeepLabError, unknown_name
from experiments.table import METRICS, Table

FOLDER = pathlib.Path(__file__).parent / "tables"


def list_tables() -> list[str]:
    """Returns the names of all tables, such as v3/table5."""
    paths = sorted(FOLDER.glob("*/[!_]*.py"))
    return [path.relative_to(FOLDER).with_suffix("").as_posix() for path in paths]


def find_table(reference: str) -> Table:
    """Returns the table with a given name, or the table that a Python file defines.

    Args:
      reference: name, such as v3/table5, or path of a Python file that defines `TABLE`.

    Raises:
      DeepLabError: there is no such table or file, the file cannot be imported or does not define
        `TABLE`, or `check_table` finds a fault in the table.
    """
    path = pathlib.Path(reference)
    if path.suffix != ".py":
        if reference not in list_tables():
            raise unknown_name("table", reference, list_tables())
        path = FOLDER / f"{reference}.py"
    if not path.is_file():
        raise DeepLabError(f"there is no file {path}; start from a copy of experiments/example.py")
    spec = importlib.util.spec_from_file_location(f"table_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    # The code of a user can raise any exception.
    except Exception as error:
        raise DeepLabError(
            f"{path} cannot be imported: {type(error).__name__}: {error}; correct this file"
        ) from error
    table = getattr(module, "TABLE", None)
    if not isinstance(table, Table):
        raise DeepLabError(f"{path} must define TABLE, a `Table`; see experiments/example.py")
    check_table(table, str(path))
    return table


def check_table(table: Table, where: str) -> None:
    """Checks the rows and claims of a table.

    Args:
      table: table to check.
      where: path of the file that defines the table, for error messages.

    Raises:
      DeepLabError: two rows have the same label; a metric does not exist; a claim, or the field
        `minus` of a row, refers to a row that does not exist; or the effect of a claim is not
        above 0.
    """
    labels = [row.label for row in table.rows]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise DeepLabError(f"{where}: two rows have the label {twice[0]!r}; labels must be unique")
    for row in table.rows:
        for metric in (table.metric, *row.costs):
            if metric not in METRICS:
                raise unknown_name(f"metric in {where}", metric, METRICS)
        if row.minus is not None and row.minus not in labels:
            raise unknown_name(f"row (field minus) in {where}", row.minus, labels)
    for claim in table.claims:
        for label in (claim.better, claim.worse):
            if label not in labels:
                raise unknown_name(f"row of a claim in {where}", label, labels)
        if not claim.effect > 0:
            raise DeepLabError(f"{where}: the effect of the claim {claim.text!r} must be above 0")
