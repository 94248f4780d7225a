"""Text to tokens to OFRecord files to arrays to batches.

Data flows one way: `text` (rows of a file), `tokenization` (WordPiece ids), `writer` and `reader` (OFRecord files,
described by `schema`), `scores` (prototypical scores of the training rows), `dataset` (which of these a step uses, and
when they are stale), `batches` (order and shape of the input of the graph). `tasks` holds the domains and labels of a
task, `seeds` the random streams of a run, `errors` the exception for bad input. Nothing here imports `modeling` or OneFlow.
"""
