"""Segmentation losses on logits, and penalties on parameters, as pure functions of arrays."""

from deeplab_jax.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        ".combined": "Loss dense_kernels kernels l1_penalty l2_penalty weighted_sum with_auxiliary",
        ".cross_entropy": (
            "focal_loss hard_pixel_cross_entropy hard_pixel_fraction pixel_cross_entropy "
            "softmax_cross_entropy"
        ),
        ".distillation": "distillation_loss",
        ".multi_scale": "multi_scale_cross_entropy resized_cross_entropy shrink_labels",
        ".overlap": "dice_loss lovasz_softmax",
        ".targets": "masked_label pixel_mean num_valid_pixels",
    },
)
