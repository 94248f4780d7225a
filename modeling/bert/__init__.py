"""The model: its sizes, variables, encoder, heads and dropout."""
