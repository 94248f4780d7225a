"""What surrounds the phases: set-up, checkpoint conversion, the demo."""
