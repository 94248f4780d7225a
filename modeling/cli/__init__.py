"""The command line of scripts and tools: flags, files of flags, signals, exit codes. Knows nothing of the model."""
