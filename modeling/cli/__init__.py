"""Command line of scripts and tools: flags, flags files, signals, exit codes. It does not import the model."""
