"""The map of the code names every room, and only files that exist."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
PACKAGE = ROOT / "deeplab_jax"


def test_every_room_is_on_the_map():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    missing = [room for room in sorted(rooms) if f"`{room}/`" not in PAGE]
    assert not missing


def test_every_file_that_is_named_exists():
    named = set(re.findall(r"`([\w/]+\.(?:py|toml))`", PAGE)) | set(
        re.findall(r"`([\w/]+/)`", PAGE)
    )
    bare = {"flags.py": "cli/flags.py", "dispatch.py": "ops/dispatch.py"}
    for name in named:
        path = bare.get(name, name)
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), name


def test_no_addition_touches_more_than_three_files():
    table = PAGE.split("## Where to add")[1]
    for line in table.splitlines():
        if line.startswith("| a ") or line.startswith("| published"):
            files = line.split("|")[2].split(";")
            assert 1 <= len(files) <= 3, line
