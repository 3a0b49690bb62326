"""The one label value that is no class."""

# Void pixels, whatever they are on disk; VOC's own value. They take no part in losses and metrics.
IGNORE_LABEL = 255
