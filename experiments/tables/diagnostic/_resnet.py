"""Shared part of the diagnostic tables that need a ResNet: multi-grid and cascade."""

# ResNet-18 without ASPP, as in the cascades of DeepLab v3. It is not narrow, unlike the MobileNetV2
# of the recipe, and diverges at its learning rate.
RESNET_18 = {
    "model.backbone": "resnet_18_beta",
    "model.head": "cascade",
    "model.depth_multiplier": None,
    "model.aspp_channels": None,
    "model.atrous_rates": None,
    "model.image_pooling": None,
    "schedule.base_learning_rate": 0.003,
}
