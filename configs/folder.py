"""DeepLab v3+ with MobileNetV2 on your own images and masks (docs/guides/data.md).

  deeplab-jax prepare folder --source=mine --classes=mine/classes.txt --data_dir=data --report
  deeplab-jax train --config=configs/folder.py:cpu --workdir=runs/mine

The recipe is that of camvid.py without class weights. `prepare --report` suggests class weights. To
use them, add --config.loss.class_weights=1.0,2.5 to `train`, with one number per class. With `cpu`,
crops have 193 × 257 pixels, and 1800 steps take 16 minutes on 2 cores. If your images are smaller
than the crops, reduce augmentation.crop_size.

Arguments:
* `cpu`: small crops and batches, and a small network, for training on two CPU cores.
* `best`, `best_gpu`: EfficientNet-Lite from ImageNet, as in camvid.py.
* `steps`: number of training steps (default: 20,000; 1800 with `cpu`; 1000 with `cpu` and `init`;
  2800 with `best`; 12,000 with `best_gpu`).
* `init`: model that provides the initial weights of the backbone (default: random weights): a name
  of published weights, a model directory or a workdir. Without `init`, `cpu` halves the number of
  channels of the backbone; with `init`, the backbone has all channels.
"""

from ml_collections import ConfigDict

from deeplab_jax import config as configs


def get_config(text: str | None = None) -> ConfigDict:
    """Returns the config for the arguments in `text`; the module docstring lists them."""
    config = configs.load(f"camvid:{text or ''}")
    config.data.name = "folder"
    config.loss.class_weights = None
    return config
