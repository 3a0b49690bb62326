"""The builders by name."""

from deeplab_jax.data.builders.ade20k import Ade20k
from deeplab_jax.data.builders.base import SegmentationBuilder
from deeplab_jax.data.builders.camvid import Camvid
from deeplab_jax.data.builders.cityscapes import Cityscapes
from deeplab_jax.data.builders.folder import Folder
from deeplab_jax.data.builders.shapes import Shapes
from deeplab_jax.data.builders.voc_segmentation import VocSegmentation

BUILDERS: dict[str, type[SegmentationBuilder]] = {
    builder.name: builder
    for builder in (Camvid, VocSegmentation, Cityscapes, Ade20k, Folder, Shapes)
}
