"""Keywords of an architecture in one text, as in output_stride=8,atrous_rates=(12,24,36)."""

import ast
from typing import Any

from deeplab_jax.errors import DeepLabError

OPENING, CLOSING = "([{", ")]}"
BOOLEANS = {"true": True, "false": False}


def parse_keywords(text: str, separator: str = ",") -> dict[str, Any]:
    """Returns the keywords with their values: Python literals, or else strings.

    Args:
      text: KEY=VALUE and so on; an empty text has none.
      separator: between keywords; within brackets it belongs to the value.

    Raises:
      DeepLabError: a part is no KEY=VALUE, a key comes twice, or brackets do not match.
    """
    keywords: dict[str, Any] = {}
    for part in _split(text, separator) if text.strip() else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise DeepLabError(
                f"{part.strip()!r} is not KEY=VALUE; tuples take brackets, as in "
                "atrous_rates=(12,24,36)"
            )
        if key in keywords:
            raise DeepLabError(f"{key} is given twice")
        keywords[key] = _literal(value)
    return keywords


def _split(text: str, separator: str) -> list[str]:
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in OPENING) - (letter in CLOSING)
        if depth < 0:
            break
        if letter == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    if depth != 0:
        raise DeepLabError(f"the brackets of {text!r} do not match")
    return parts


def _literal(text: str) -> Any:
    if text.lower() in BOOLEANS:
        return BOOLEANS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
