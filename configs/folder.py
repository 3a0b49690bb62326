"""DeepLab v3+ on MobileNetV2 on your own images and masks (docs/guides/data.md).

  deeplab-jax prepare folder --source=mine --classes=mine/classes.txt --data_dir=data --report
  deeplab-jax train --config=configs/folder.py:cpu --workdir=runs/mine

The recipe of camvid.py without its class weights; `--report` suggests weights for rare classes, and
--config.loss.class_weights=1.0,2.5 sets them. `cpu`: 16 minutes for 1800 steps on 2 cores (see
camvid.py), crops of 193 × 257; change augmentation.crop_size if your images are smaller.

Arguments: `cpu`; `steps`, how many updates.
"""

from ml_collections import ConfigDict

from deeplab_jax import config as configs


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config."""
    config = configs.load(f"camvid:{text or ''}")
    config.data.name = "folder"
    config.loss.class_weights = None
    return config
