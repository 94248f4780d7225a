"""What is written of models: snapshots and the teacher's outputs."""
