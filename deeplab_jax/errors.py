"""The one error that users see, and the search for what they may have meant."""

import difflib
from collections.abc import Iterable, Sequence

MANY = 20


class DeepLabError(ValueError):
    """A mistake that the user can mend.

    The message is one line: what was wrong, where, and what would be right. The commands print it
    and exit with status 2; in Python it is an ordinary ValueError.
    """


def unknown_name(kind: str, name: str, legal: Iterable[str]) -> DeepLabError:
    """Returns the error for a name that is none of the legal ones, with the nearest of them.

    Args:
      kind: what the name names, as in "config field" or "backbone".
      name: what was given.
      legal: every name that would have been right.
    """
    legal = list(legal)
    nearest = nearest_names(name, legal)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    # One line: of many legal names only those that look alike are worth reading.
    shown = legal if len(legal) <= MANY or not nearest else [*nearest, "…"]
    return DeepLabError(f"unknown {kind} {name!r}; {hint}legal: {', '.join(shown)}")


def nearest_names(name: str, legal: Iterable[str]) -> list[str]:
    """Returns the legal names that look like the given one, the nearest first; at most 4."""
    of_lower = {candidate.lower(): candidate for candidate in legal}
    alike = difflib.get_close_matches(name.lower(), of_lower, n=4, cutoff=0.5)
    return [of_lower[candidate] for candidate in alike]


def shortened(items: Sequence[object], limit: int) -> str:
    """Returns the first `limit` items joined by commas, with "…" for the others."""
    return ", ".join(map(str, items[:limit])) + (", …" if len(items) > limit else "")
