"""File formats for models: snapshots and teacher outputs."""
