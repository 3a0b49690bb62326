"""The tables of keywords and config fields in the pages are those of the declarations."""

import dataclasses
import importlib.util
import pathlib

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


@pytest.mark.parametrize("table", TABLES.PAGES)
def test_a_page_has_the_table_of_today(table):
    text = (DOCS / TABLES.PAGES[table]).read_text()
    assert TABLES.with_table(text, table) == text, "run python docs/write_tables.py"


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


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_a_switch_takes_true_or_false_alone(value):
    with pytest.raises(ValueError, match=r"aux_head=.* must be True or False"):
        Architecture("mobilenet_v2", aux_head=value)
