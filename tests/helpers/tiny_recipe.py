"""Config file for a very small training run on `shapes`."""

from pathlib import Path

SMALL = {
    "model.depth_multiplier": 0.25,
    "model.aspp_channels": 8,
    "model.decoder_convs": ((3, 8),),
    "augmentation.crop_size": (33, 49),
}


def write_tiny_recipe(path: Path, **changes: object) -> Path:
    """Writes a config file and returns its path.

    Args:
      path: path of the file.
      **changes: values by config field, with __ for the dot.
    """
    fields = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    path.write_text(
        "from deeplab_jax import config as configs\n\n\n"
        "def get_config(text=None):\n"
        '    config = configs.load("shapes:cpu")\n'
        + "".join(f"    config.{field} = {value!r}\n" for field, value in fields.items())
        + "    return config\n"
    )
    return path
