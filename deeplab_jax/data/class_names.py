"""The class names of a user's data set, from a file of their own."""

from pathlib import Path

from deeplab_jax.data.color_maps import Color, parse_json, read_color_map, read_text
from deeplab_jax.data.descriptors import Descriptor, check_several_classes, describe
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import MAX_CLASSES, void_label

# In a colour map these mean "no class" unless the class file lists them.
VOID_NAMES = ("void", "ignore", "unlabeled", "unlabelled")


# Looked for in the source when no class file is given.
CLASS_FILES = ("classes.txt", "classes.json")


def folder_classes(
    source: Path, class_file: str | Path | None, color_map: str | Path | None
) -> tuple[Descriptor, dict[Color, int] | None]:
    """Returns the classes of a user's folder and, where masks are painted, each colour's label.

    Args:
      source: the folder.
      class_file: see `read_class_names`; by default `classes.txt` or `classes.json` in the source,
        else the names of the colour map are the classes.
      color_map: see `read_color_map`; None for masks of indices.

    Raises:
      DeepLabError: the classes are given nowhere, there is only one, or the two files do not fit
        each other.
    """
    found = [source / name for name in CLASS_FILES if (source / name).is_file()]
    names_path = Path(class_file).expanduser() if class_file else next(iter(found), None)
    names = read_class_names(names_path) if names_path else None
    if color_map:
        path = Path(color_map).expanduser()
        painted = _painted_classes(names, path)
        check_several_classes(painted[0].class_names, names_path or path)
        return painted
    if names is None:
        raise DeepLabError(
            f"{source}: the classes are not told; give a file with one class name a line "
            f"(--classes, or {CLASS_FILES[0]} in the source)"
        )
    check_several_classes(names, names_path)
    return describe("folder", names), None


def read_class_names(path: Path) -> tuple[str, ...]:
    """Reads class names in label order.

    Args:
      path: of a text file with one name a line, or of JSON: a list, or {"name": index}.

    Raises:
      DeepLabError: the file is missing or none of these, names repeat, or indices have gaps.
    """
    text = read_text(path, "class names")
    if path.suffix.lower() == ".json":
        names = _from_json(parse_json(text, path), path)
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not 0 < len(names) <= MAX_CLASSES or len(set(names)) < len(names):
        raise DeepLabError(f"{path}: give 1 to {MAX_CLASSES} class names, none of them twice")
    return tuple(names)


def _painted_classes(
    names: tuple[str, ...] | None, path: Path
) -> tuple[Descriptor, dict[Color, int]]:
    colors = read_color_map(path)
    names = names or tuple(name for name in colors if name.lower() not in VOID_NAMES)
    missing = [name for name in names if name not in colors]
    if missing:
        raise DeepLabError(f"{path}: no colour for the class {missing[0]!r}")
    descriptor = describe("folder", names, [colors[name] for name in names])
    return descriptor, {color: _label(name, names, path) for name, color in colors.items()}


def _label(name: str, names: tuple[str, ...], path: Path) -> int:
    if name in names:
        return names.index(name)
    if name.lower() in VOID_NAMES:
        return void_label(len(names))
    raise DeepLabError(
        f"{path}: {name!r} is no class ({', '.join(names)}); colours that are to be void are named "
        f"{VOID_NAMES[0]!r}"
    )


def _from_json(entries: object, path: Path) -> list[str]:
    if isinstance(entries, dict) and sorted(entries.values(), key=str) == sorted(
        range(len(entries)), key=str
    ):
        entries = sorted(entries, key=entries.__getitem__)
    if not isinstance(entries, list) or not all(isinstance(name, str) for name in entries):
        raise DeepLabError(
            f'{path}: class names in JSON are a list of names or {{"name": index}} with the '
            "indices 0, 1, … without gaps"
        )
    return entries
