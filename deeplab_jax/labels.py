"""The label value that is no class, and masks of nothing but 0 and 255."""

# Void pixels, whatever they are on disk; VOC's own value. They take no part in losses and metrics.
IGNORE_LABEL = 255

# In masks of two classes that hold exactly these values, 255 is class 1 and nothing is void.
BINARY_FOREGROUND = 255
BINARY_VALUES = frozenset((0, BINARY_FOREGROUND))
