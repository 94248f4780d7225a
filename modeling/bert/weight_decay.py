"""Which variables weight decay applies to."""

NO_DECAY = ("LayerNorm", "bias")


def has_weight_decay(name):
    """Whether the optimizer decays a variable or a fused parameter of this name: every name without one of NO_DECAY in it."""
    return not any(pattern in name for pattern in NO_DECAY)
