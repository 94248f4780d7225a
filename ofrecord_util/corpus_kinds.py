"""Values that the flags of a corpus accept by name."""

EVALUATION_TEXTS = REFUSE, LEAVE_OUT, KEEP = ("refuse", "leave_out", "keep")  # of --evaluation_text
PACKINGS = LINE, PACKED = ("line", "packed")  # of --packing
