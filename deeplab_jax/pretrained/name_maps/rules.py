"""Name maps as data: rules from the paths of our modules to another code's scopes."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

FIELD = re.compile(r"{(\w+)([+-]\d+)?}")


class Rule(NamedTuple):
    """Where the arrays of some of our modules are found.

    `{n}` in `ours` stands for anything without a slash; in the others for the same, and `{n-2}`
    for a number less by 2.

    Attributes:
      ours: path of a module with a kernel, as in `backbone/layer_{n}/{part}`.
      theirs: scope of the kernel and bias.
      norm: scope of the batch normalisation; empty where the convention derives it.
      moved: how many of the kernel's last input channels are the first ones here, where maps are
        joined in another order.
    """

    ours: str
    theirs: str
    norm: str = ""
    moved: int = 0


class Scopes(NamedTuple):
    """Scopes of one module's arrays: of kernel and bias, and of its normalisation.

    `moved` is as in the rule.
    """

    convolution: str
    norm: str
    moved: int = 0


def translate(path: str, rules: Sequence[Rule], default_norm: str = "") -> Scopes | None:
    """Returns the scopes of our module, by the first rule that fits; None without one.

    Args:
      path: of the module, without `norm`.
      rules: of the map.
      default_norm: template of the normalisation's scope, with `{convolution}`.
    """
    for rule in rules:
        found = _pattern(rule.ours).fullmatch(path)
        if found:
            convolution = _filled(rule.theirs, found.groupdict())
            norm = _filled(rule.norm, found.groupdict())
            norm = norm or default_norm.format(convolution=convolution)
            return Scopes(convolution, norm, rule.moved)
    return None


@functools.cache
def _pattern(ours: str) -> re.Pattern[str]:
    literal = FIELD.split(ours)
    # split gives text, field and offset in turn.
    pieces = [re.escape(text) for text in literal[::3]]
    fields = [f"(?P<{name}>[^/]+)" for name in literal[1::3]]
    return re.compile("".join(a + b for a, b in zip(pieces, [*fields, ""], strict=True)))


def _filled(template: str, values: Mapping[str, str]) -> str:
    def value(field: re.Match[str]) -> str:
        name, offset = field.groups()
        return str(int(values[name]) + int(offset)) if offset else values[name]

    return FIELD.sub(value, template)
