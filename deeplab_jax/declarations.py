"""Declaration of keywords and config fields: type, default, legal values and documentation."""

import ast
import dataclasses
import math
import types
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from deeplab_jax.errors import DeepLabError, unknown_name

METADATA = "declaration"


class Rule(NamedTuple):
    """Condition on one value.

    Attributes:
      holds: function that returns whether a value satisfies the condition.
      words: description for error messages, to follow "must be".
    """

    holds: Callable[[Any], bool]
    words: str


class Declaration(NamedTuple):
    """Documentation of a field, and the rules that its values must satisfy.

    Attributes:
      help: noun phrase that describes the value.
      unit: unit of the value; empty for names, switches and plain numbers.
      source: paper, section or code that the default or the idea comes from.
      legal: all legal values; empty if they cannot be listed.
      rule: further condition on the value; None: no condition, except that a field of type bool
        must be True or False.
      shown_default: default in words, for a default that depends on other fields.
    """

    help: str
    unit: str
    source: str
    legal: tuple[Any, ...]
    rule: Rule | None
    shown_default: str


def keyword(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    unit: str = "",
    source: str = "",
    legal: tuple[Any, ...] = (),
    rule: Rule | None = None,
    shown_default: str = "",
) -> Any:
    """Returns a dataclass field with a `Declaration`.

    Args:
      default: default of the field; None if the field is unset by default. If this argument is
        omitted, the field is required.
      help, unit, source, legal, rule, shown_default: see `Declaration`.
    """
    declaration = Declaration(help, unit, source, legal, rule, shown_default)
    return dataclasses.field(default=default, metadata={METADATA: declaration})


def declaration(field: dataclasses.Field[Any]) -> Declaration:
    """Returns the declaration of a field that was created by `keyword`."""
    return field.metadata[METADATA]


def help_text(field: dataclasses.Field[Any]) -> str:
    """Returns the help of a field, followed by its unit and source in parentheses."""
    declared = declaration(field)
    notes = [declared.unit and f"unit: {declared.unit}", declared.source]
    noted = "; ".join(filter(None, notes))
    return f"{declared.help} ({noted})" if noted else declared.help


def default_text(field: dataclasses.Field[Any]) -> str:
    """Returns the default of a field as text."""
    unset = "unset" if field.default is None else repr(field.default)
    return declaration(field).shown_default or unset


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _all(values: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(values, tuple) and all(map(holds, values))


def _is_positive(value: Any) -> bool:
    return _is_whole(value) and value >= 1


def _is_width(pair: Any) -> bool:
    is_pair = isinstance(pair, tuple) and len(pair) == 2
    return is_pair and isinstance(pair[0], str) and _is_positive(pair[1])


POSITIVE = Rule(_is_positive, "a whole number of at least 1")
# JAX silently uses only the lowest 32 bits of a seed.
SEED = Rule(
    lambda value: _is_whole(value) and 0 <= value < 2**32, "a whole number from 0 to 2**32 - 1"
)
COUNT = Rule(lambda value: _is_whole(value) and value >= 0, "a whole number of at least 0")
NAME = Rule(lambda value: isinstance(value, str), "a name")
OUTPUT_STRIDE = Rule(
    lambda value: _is_whole(value) and value in (4, 8, 16, 32, 64, 128, 256),
    "one of 4, 8, 16, 32 and, only with head='cascade', 64, 128, 256",
)
FRACTION = Rule(lambda value: _is_number(value) and 0 <= value < 1, "in [0, 1)")
PROBABILITY = Rule(lambda value: _is_number(value) and 0 <= value <= 1, "in [0, 1]")
NONZERO_FRACTION = Rule(lambda value: _is_number(value) and 0 < value <= 1, "in (0, 1]")
ABOVE_ZERO = Rule(lambda value: _is_number(value) and value > 0, "a finite number above 0")
NOT_NEGATIVE = Rule(lambda value: _is_number(value) and value >= 0, "at least 0 and finite")
POSITIVES = Rule(lambda values: _all(values, _is_positive), "whole numbers of at least 1")
DIFFERENT_POSITIVES = Rule(
    lambda values: _all(values, _is_positive) and len(set(values)) == len(values),
    "different whole numbers of at least 1",
)
FRACTIONS = Rule(lambda values: _all(values, FRACTION.holds), "numbers in [0, 1)")
NUMBERS = Rule(lambda values: _all(values, _is_number), "finite numbers, one for each channel")
ABOVE_ZEROS = Rule(
    lambda values: _all(values, lambda value: _is_number(value) and value > 0),
    "finite numbers above 0, one for each channel",
)
CLASS_WEIGHTS = Rule(
    lambda values: _all(values, NOT_NEGATIVE.holds), "finite numbers of at least 0, one per class"
)
NAMES = Rule(
    lambda names: _all(names, lambda name: isinstance(name, str)), "names, as in ('road', 'car')"
)
SIZE = Rule(
    lambda size: _all(size, _is_positive) and len(size) == 2,
    "a height and a width, as in (513, 513)",
)
SCALES = Rule(
    lambda scales: (
        _all(scales, lambda scale: _is_number(scale) and 0 < scale <= 1)
        and (not scales or scales[0] == 1)
    ),
    "scale factors in (0, 1], beginning with 1, as in (1, 0.75, 0.5)",
)
CONVOLUTIONS = Rule(
    lambda pairs: _all(pairs, lambda pair: POSITIVES.holds(pair) and len(pair) == 2),
    "pairs of kernel size and channels, as in ((3, 256), (3, 256))",
)
WRITERS = Rule(
    lambda names: (
        _all(names, lambda name: name in ("tensorboard", "wandb", "mlflow"))
        and len(set(names)) == len(names)
    ),
    "different names from tensorboard, wandb and mlflow, as in ('tensorboard', 'wandb')",
)
WIDTHS = Rule(
    lambda pairs: _all(pairs, _is_width),
    "pairs of layer path and number of channels, as in (('backbone/layer_3/expand', 72),)",
)


def kind(owner: type, field: dataclasses.Field[Any]) -> type:
    """Returns the type of a field: `int` for `int | None`, `tuple` for `tuple[int, ...]`."""
    hint = typing.get_type_hints(owner)[field.name]
    if isinstance(hint, types.UnionType):
        (hint,) = (one for one in typing.get_args(hint) if one is not type(None))
    return typing.get_origin(hint) or hint


def check_value(owner: type, field: dataclasses.Field[Any], value: Any, shown: str = "") -> None:
    """Checks one value against the declaration of its field.

    Args:
      owner: dataclass of the field.
      field: field created by `keyword`.
      value: value to check; None is legal if it is the default.
      shown: name of the field in the error message (default: `field.name`).

    Raises:
      DeepLabError: the value is illegal; the message states which values are legal.
    """
    declared, name = declaration(field), shown or field.name
    if value is None and field.default is None:
        return
    # The types are compared, too, because 16.0 and True are equal to 16 and 1.
    if declared.legal and not any(
        type(value) is type(legal) and value == legal for legal in declared.legal
    ):
        if isinstance(value, str) and isinstance(declared.legal[0], str):
            raise unknown_name(name, value, declared.legal)
        legal = ", ".join(map(str, declared.legal))
        raise DeepLabError(f"{name}={value!r} must be one of {legal}")
    rule = declared.rule
    if rule is None and kind(owner, field) is bool:
        rule = Rule(lambda value: isinstance(value, bool), "True or False")
    if rule is not None and not rule.holds(value):
        raise DeepLabError(f"{name}={value!r} must be {rule.words}")


def parse_literal(text: str) -> Any:
    """Parses a Python literal, `true` or `false`; returns any other text unchanged."""
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text.lower(), text))
    except (SyntaxError, TypeError, ValueError):
        # TypeError: a key of a dictionary or a member of a set is a list.
        return text
