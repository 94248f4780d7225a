"""Measures how well the vectors of texts find their translations, as Tatoeba does it: of two aligned files, the nearest text is right.

    python3 tools/retrieve.py --model_load_dir SNAPSHOT --source a.txt --target b.txt --layer 19
    python3 tools/retrieve.py --model_load_dir SNAPSHOT --source a.txt --target b.txt --format json

Text N of --target is the translation of text N of --source. For each text of one file, the text of the other file whose vector has the
greatest cosine similarity is found. Accuracy is the share of texts for which this is their translation; both directions are measured. A
text that occurs twice counts as right only once, since the nearest of equal vectors is the first one. The default vector is the mean of
the states of all tokens, those at both ends included. Layer 19 of 24 is that of VECO and XLM-R-large in Tatoeba. The files are read in the
same way as by tools/predict.py. The vectors of --source are all in memory, those of --target are not.
"""

if not __package__:
    import _root  # noqa: F401

import json
import sys

import numpy as np
from tqdm import tqdm

from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flags import add_text_flags
from modeling.embedder import Embedder, nearest_both_ways
from ofrecord_util.escaping import for_json, say
from ofrecord_util.text_columns import TextOptions
from tools.embed import add_vector_flags
from tools.texts import add_model_flags, open_input, read_lines, texts_of, warn_of_unknown


def read_aligned(paths, options, warn):
    """The texts of two files.

    Args:
        paths: those of --source and --target.
        options: `TextOptions`.
        warn: as of `texts_of`.
    Returns:
        two lists of as many str.
    Raises:
        UserError: a file cannot be read or is empty; one has more texts than the other.
    """
    streams = [open_input(path, flag) for path, flag in zip(paths, ("--source", "--target"))]
    source, target = (list(texts_of(read_lines(*stream), False, stream[1], options, warn=warn)) for stream in streams)
    for path, texts in zip(paths, (source, target)):
        if not texts:
            raise UserError(f"{path}: there is no text in it")
    if len(source) != len(target):
        raise UserError(
            f"--source {paths[0]} has {len(source)} texts, --target {paths[1]} has {len(target)}: text N of one must be the translation of "
            "text N of the other"
        )
    return source, target


def retrieve(embedder, source, target):
    """Positions of the nearest texts.

    Args:
        embedder: `Embedder`, or another function from a list of texts to portions of vectors.
        source: list of texts.
        target: list of texts.
    Returns:
        (int64 [N], the position in `target` for each text of `source`; int64 [M], the other way).
    """
    with tqdm(desc="embed", unit="text", total=len(source) + len(target), disable=None, delay=1, leave=False) as bar:

        def portions(texts):
            for vectors in embedder(texts):
                yield vectors
                bar.update(len(vectors))

        return nearest_both_ways(np.concatenate(list(portions(source))), portions(target))


def main():
    parser = Parser(prints_result=True, description=__doc__)
    add_model_flags(parser, has_input=False)
    parser.add_argument("--source", required=True, metavar="FILE", help="texts, one per line, or a table")
    parser.add_argument("--target", required=True, metavar="FILE", help="their translations, in the same order")
    add_text_flags(parser, ("text_format", "text_column"))
    add_vector_flags(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text", help="form of the result: lines, or one JSON object")
    args = parser.parse_args()

    def warn(line):
        say(line, sys.stderr)

    paths = args.source, args.target
    texts = read_aligned(paths, TextOptions.from_flags(vars(args)), warn)
    settings = {key: getattr(args, key) for key in ("device", "batch_size", "seq_length", "vocab_file", "memory_limit")}
    embedder = Embedder(args.model_load_dir, args.layer, args.reduction, log=warn, **settings)
    if embedder.pair:
        raise UserError(f"{embedder.path} was trained for pairs of texts: give a snapshot for single texts, or an encoder")
    found = retrieve(embedder, *texts)
    count = len(texts[0])
    right = [int(np.count_nonzero(rows == np.arange(count))) for rows in found]
    if args.format == "json":
        ways = {name: {"correct": number, "accuracy": number / count} for name, number in zip(("forward", "backward"), right)}
        about = {"source": paths[0], "target": paths[1], "layer": embedder.layer, "reduction": args.reduction, "texts": count}
        say(for_json(json.dumps({**about, **ways}, ensure_ascii=False)))
    else:
        for (one, other), number in zip((paths, paths[::-1]), right):
            say(f"{one} to {other}: accuracy {number / count:.4f} ({number} of {count})")
    warn_of_unknown(embedder, warn)


if __name__ == "__main__":
    run(main)
