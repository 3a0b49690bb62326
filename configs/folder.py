"""DeepLab v3+ with MobileNetV2 on your own images and masks (docs/guides/data.md).

  deeplab-jax prepare folder --source=mine --classes=mine/classes.txt --data_dir=data --report
  deeplab-jax train --config=configs/folder.py:cpu --workdir=runs/mine

The recipe is that of camvid.py without class weights. `--report` suggests class weights, and
--config.loss.class_weights=1.0,2.5 sets them. With `cpu`, 1800 steps take 16 minutes on 2 cores,
with crops of 193 × 257. If your images are smaller, reduce augmentation.crop_size.

Arguments:
* `cpu`: small crops and batches, and a small network, for training on two CPU cores.
* `steps`: number of training steps.
* `init`: model that provides the initial weights of the backbone (default: random weights): a name
  of published weights, a model directory or a workdir. The network then has all channels.
"""

from ml_collections import ConfigDict

from deeplab_jax import config as configs


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
    config = configs.load(f"camvid:{text or ''}")
    config.data.name = "folder"
    config.loss.class_weights = None
    return config
