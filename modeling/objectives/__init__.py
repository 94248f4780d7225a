"""What the train functions minimise: loss terms, prototypes, corruption, distillation."""
