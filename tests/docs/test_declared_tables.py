"""The generated tables of the pages equal the declarations and the recorded measurements."""

import csv
import dataclasses
import importlib.util
import pathlib
import re

import pytest

from deeplab_jax import config as configs
from deeplab_jax.architecture import Architecture
from deeplab_jax.config_fields import declared_fields, model_fields
from deeplab_jax.declarations import check_value, declaration, kind

DOCS = pathlib.Path(__file__).parents[2] / "docs"
SPEC = importlib.util.spec_from_file_location("write_tables", DOCS / "write_tables.py")
TABLES = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(TABLES)
EVERY = [*declared_fields(), *((f"model.{name}", *rest) for name, *rest in model_fields())]


@pytest.mark.parametrize("page", TABLES.pages(), ids=lambda page: page.name)
def test_the_tables_of_a_page_are_current(page):
    text = page.read_text("utf-8")
    assert TABLES.with_tables(text) == text, "run python docs/write_tables.py"


def test_every_declared_table_stands_in_a_page():
    found = {table for page in TABLES.pages() for table in TABLES.MARK.findall(page.read_text())}
    assert set(TABLES.TABLES) <= found
    assert {f"measured {path.stem}" for path in TABLES.MEASURED.glob("*.csv")} <= found


@pytest.mark.parametrize("path", sorted(TABLES.MEASURED.glob("*.csv")), ids=lambda path: path.stem)
def test_a_measurement_names_its_origin(path):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = ["row", "quantity", "value", "unit", "command", "commit", "hardware", "date"]
    assert rows
    assert list(rows[0]) == expected
    for row in rows:
        assert all(row[key] for key in expected if key != "unit"), row
        assert re.fullmatch(r"[0-9a-f]{7,40}", row["commit"]), row
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["date"]), row
    assert len({(row["row"], row["quantity"]) for row in rows}) == len(rows)


def test_every_config_field_is_declared_once():
    names = [name for name, *_ in EVERY]
    assert len(set(names)) == len(names)
    assert set(names) == dict(configs.flatten(configs.default())).keys()


@pytest.mark.parametrize(("name", "owner", "field"), EVERY, ids=lambda value: str(value)[:40])
def test_a_field_has_help_a_type_and_a_legal_default(name, owner, field):
    assert declaration(field).help.endswith(".")
    assert kind(owner, field) in (bool, int, float, str, tuple)
    if field.default is not dataclasses.MISSING:
        check_value(owner, field, field.default)


# Fields whose legal values depend on the number of devices.
CHECKED_WITH_OTHERS = ("parallel.data", "parallel.spatial")


def test_every_number_and_tuple_of_the_config_has_a_rule():
    unchecked = [
        name
        for name, owner, field in EVERY
        if kind(owner, field) in (int, float, tuple)
        and not (declaration(field).legal or declaration(field).rule)
    ]
    assert sorted(unchecked) == sorted(CHECKED_WITH_OTHERS)


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_switch_takes_true_or_false_alone(value):
    with pytest.raises(ValueError, match=r"aux_head=.* must be True or False"):
        Architecture("mobilenet_v2", aux_head=value)
