"""Values that the flags of a corpus accept by name."""

EVALUATION_TEXTS = REFUSE, LEAVE_OUT, KEEP = ("refuse", "leave_out", "keep")  # of --evaluation_text
PACKINGS = LINE, PACKED = ("line", "packed")  # of --packing
DOCUMENT_ENDS = LINE_END, BLANK_LINE = ("line", "blank_line")  # of --document_end
PAIRS = "pairs"  # records of lines with two texts (--paired_lines); a manifest has it in the place of PACKINGS
# The records of sentences, whose documents have these ends. A manifest has them in the place of PACKINGS
SENTENCES = {LINE_END: "sentences", BLANK_LINE: "sentences between blank lines"}
