"""The BERT builder, heads, losses, prototypes, static graphs, optimizer, snapshots and the training loop of all phases."""
