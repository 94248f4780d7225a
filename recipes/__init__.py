"""Scripts of other methods, which use the modules of this project."""
