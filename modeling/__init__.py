"""The BERT builder, heads, losses, prototypes, static graphs, optimizer, snapshots and the training loop of all phases."""

from modeling.cli.process import prepare

prepare()
