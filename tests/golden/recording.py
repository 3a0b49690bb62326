"""Recorded results: read back, or written again with DEEPLAB_UPDATE_GOLDEN=1."""

import json
import os
import pathlib
from typing import Any

FOLDER = pathlib.Path(__file__).parent / "recorded"


def recorded(name: str, found: Any = None) -> Any:
    """Returns what was recorded under a name, after recording it where that is asked for.

    Args:
      name: file name in tests/golden/recorded; a `.json` file holds values, a `.txt` file a text.
      found: the present value, JSON-ready or a text; None: nothing is recorded.
    """
    path = FOLDER / name
    update = found is not None and os.environ.get("DEEPLAB_UPDATE_GOLDEN") == "1"
    text = found if path.suffix == ".txt" else json.dumps(found, indent=1, sort_keys=True) + "\n"
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    stored = path.read_text("utf-8")
    return stored if path.suffix == ".txt" else json.loads(stored)
