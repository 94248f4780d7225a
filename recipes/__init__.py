"""Scripts of other methods. They use the modules of this project."""
