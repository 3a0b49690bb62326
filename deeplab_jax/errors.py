"""Error class for user mistakes, and suggestions of legal names that are similar to a given one."""

import difflib
from collections.abc import Collection, Iterable, Sequence

MANY = 20


class DeepLabError(ValueError):
    """Error that the user can correct.

    The message is one line that states what is wrong, where, and which values are legal. Commands
    print the message and exit with status 2.
    """


def unknown_name(kind: str, name: str, legal: Iterable[str]) -> DeepLabError:
    """Returns the error for an unknown name; its message suggests the nearest legal name.

    Args:
      kind: noun that describes the name, such as "config field" or "backbone".
      name: the unknown name.
      legal: all legal names.
    """
    legal = list(legal)
    nearest = nearest_names(name, legal)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    # A list of many names would not fit on one line: only the similar ones are printed.
    shown = legal if len(legal) <= MANY or not nearest else [*nearest, "…"]
    return DeepLabError(f"unknown {kind} {name!r}; {hint}legal: {', '.join(shown)}")


def check_name(kind: str, name: str, legal: Collection[str]) -> None:
    """Checks that a name is legal.

    Args:
      kind, name, legal: see `unknown_name`.

    Raises:
      DeepLabError: the name is not legal.
    """
    if name not in legal:
        raise unknown_name(kind, name, legal)


def nearest_names(name: str, legal: Iterable[str]) -> list[str]:
    """Returns up to 4 legal names that are similar to `name`, the nearest first."""
    of_lower = {candidate.lower(): candidate for candidate in legal}
    alike = difflib.get_close_matches(name.lower(), of_lower, n=4, cutoff=0.5)
    return [of_lower[candidate] for candidate in alike]


def class_difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """Describes the first difference between two unequal lists of class names.

    Args:
      found: class names in label order.
      expected: class names in label order, to which `found` is compared.
    """
    pairs = enumerate(zip(found, expected, strict=False))
    index = next((index for index, (first, second) in pairs if first != second), None)
    if index is None:
        return f"{len(found)} classes instead of {len(expected)}"
    return f"class {index} is {found[index]!r} instead of {expected[index]!r}"


def shortened(items: Sequence[object], limit: int) -> str:
    """Joins the first `limit` items by commas, followed by "…" if there are more."""
    return ", ".join(map(str, items[:limit])) + (", …" if len(items) > limit else "")
