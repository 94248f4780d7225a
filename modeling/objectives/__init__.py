"""What training minimises: loss terms, the objectives of MFT and Meta-KD, prototypes and corrupted domains."""
