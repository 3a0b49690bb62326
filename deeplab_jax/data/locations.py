"""Where prepared data sets lie: data_dir/NAME[/CONFIGURATION]/VERSION, as TFDS lays them out."""

import re
from pathlib import Path

from deeplab_jax.data.listing import is_hidden
from deeplab_jax.errors import DeepLabError

# TFDS writes it last, so it tells a finished data set.
INFO_FILE = "dataset_info.json"
VERSION_PATTERN = re.compile(r"\d+\.\d+\.\d+")


def prepared_directory(name: str, data_dir: str | Path) -> Path:
    """Returns the directory of the newest prepared version of a data set.

    Raises:
      DeepLabError: there is none; what is there is named.
    """
    root = Path(data_dir).expanduser()
    versions = _versions(root / name)
    if versions:
        return versions[-1]
    legal = prepared_names(root)
    below = [other for other in legal if other.startswith(f"{name}/")]
    if len(below) == 1:
        return _versions(root / below[0])[-1]
    there = f"prepared there: {', '.join(legal)}" if legal else "nothing is prepared there"
    raise DeepLabError(
        f"no data set {name!r} under {root} ({there}); make it with "
        f"`deeplab-jax prepare {name.split('/')[0]} --data_dir={root} …` (--help says more)"
    )


def prepared_names(data_dir: Path) -> list[str]:
    """Returns the names under which `open_dataset` finds something."""
    found = [*data_dir.glob(f"*/*/{INFO_FILE}"), *data_dir.glob(f"*/*/*/{INFO_FILE}")]
    versions = {path.parent for path in found if VERSION_PATTERN.fullmatch(path.parent.name)}
    names = {version.parent for version in versions if not is_hidden(version, data_dir)}
    return sorted(str(name.relative_to(data_dir)) for name in names)


def _versions(directory: Path) -> list[Path]:
    """Returns the finished versions, the newest last."""
    found = [
        path.parent
        for path in directory.glob(f"*/{INFO_FILE}")
        if VERSION_PATTERN.fullmatch(path.parent.name)
    ]
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("."))))
