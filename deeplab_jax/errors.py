"""The error class for user mistakes, and the search for the nearest legal name."""

import difflib
from collections.abc import Iterable, Sequence

MANY = 20


class DeepLabError(ValueError):
    """A mistake that the user can correct.

    The message is one line: the mistake, its place, and the legal values. The commands print it and
    exit with status 2; in Python it is a ValueError.
    """


def unknown_name(kind: str, name: str, legal: Iterable[str]) -> DeepLabError:
    """Returns the error for an unknown name, with the nearest legal one.

    Args:
      kind: noun for the name, as in "config field" or "backbone".
      name: the unknown name.
      legal: all legal names.
    """
    legal = list(legal)
    nearest = nearest_names(name, legal)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    # Keeps the message to one line: a long list is cut to the similar names.
    shown = legal if len(legal) <= MANY or not nearest else [*nearest, "…"]
    return DeepLabError(f"unknown {kind} {name!r}; {hint}legal: {', '.join(shown)}")


def nearest_names(name: str, legal: Iterable[str]) -> list[str]:
    """Returns at most 4 legal names similar to the given one, the nearest first."""
    of_lower = {candidate.lower(): candidate for candidate in legal}
    alike = difflib.get_close_matches(name.lower(), of_lower, n=4, cutoff=0.5)
    return [of_lower[candidate] for candidate in alike]


def shortened(items: Sequence[object], limit: int) -> str:
    """Returns the first `limit` items joined by commas, with "…" for the others."""
    return ", ".join(map(str, items[:limit])) + (", …" if len(items) > limit else "")
