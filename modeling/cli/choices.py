"""Values that flags accept by name. The flag table and the code that reads a value share these constants."""

POOLINGS = CLS, MEAN, MAX = ("cls", "mean", "max")
CORRUPTIONS = SAMPLED, ALL_OTHERS = ("sampled", "all")
TEACHER_OUTPUTS = DISK, ONLINE = ("disk", "online")
DEVICES = AUTO, CUDA, CPU = ("auto", "cuda", "cpu")

NEWEST_RUN = "newest"  # --resume without a value
