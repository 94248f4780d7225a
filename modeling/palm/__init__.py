"""PALM: an encoder-decoder that generates text."""
