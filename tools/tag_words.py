"""Tags words with a snapshot of recipes/sequence_labeling.py.

    python3 tools/tag_words.py --model_load_dir SNAPSHOT "Ann lives in Oslo ."
    python3 tools/tag_words.py --model_load_dir SNAPSHOT --input words.txt --output tagged.tsv
    cat words.txt | python3 tools/tag_words.py --model_load_dir SNAPSHOT

The input has one word per line, and a blank line after each sentence; further columns, separated by tabs, are not read, with a warning.
A sentence among the arguments has blanks between its words. The output has a word, a tab and its tag per line, and a blank line after each
sentence.
"""

if not __package__:
    import _root  # noqa: F401

import collections
import contextlib
import sys

from tqdm import tqdm

from modeling.cli import process
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.tagger import Tagger
from ofrecord_util.escaping import for_terminal, say
from ofrecord_util.files import replacing
from ofrecord_util.tagged_text import read_sentences
from tools.texts import add_model_flags, check_outputs, decode_argument, open_input, prepare_output, read_lines, warn_of_unknown


def rows_of(tagger, sentences):
    """Yields the lines of the output for an iterable of lists of words."""
    waiting = collections.deque()

    def remembered():
        for words in sentences:
            waiting.append(words)
            yield words

    for tags in tqdm(tagger(remembered()), desc="tag", unit="sentence", disable=None, delay=1, leave=False):
        yield from (f"{word}\t{tag}" for word, tag in zip(waiting.popleft(), tags))
        yield ""


@contextlib.contextmanager
def writer(path):
    """Yields a function that writes a line to a file, which appears when the block ends, or to standard output for None."""
    if path is None:
        shown = for_terminal if sys.stdout.isatty() else str
        yield lambda line: sys.stdout.write("\t".join(map(shown, line.split("\t"))) + "\n")
        return
    with replacing(path) as file:
        yield lambda line: file.write((line + "\n").encode("utf-8"))


def main():
    parser = Parser(may_be_empty=("text",), description=__doc__)
    parser.add_argument("text", nargs="*", help="sentences to tag (default: the words of --input or of standard input)")
    add_model_flags(parser, words=True)
    parser.add_argument("--output", metavar="FILE", help="output file (default: standard output)")
    args = parser.parse_args()
    if args.text and args.input:
        raise UserError("set either texts or --input, not both")
    if args.text and not any(map(str.strip, args.text)):
        raise UserError("the texts have no word")
    if args.output is None:
        prepare_output(parser, "give --output FILE")
    check_outputs(args, args.model_load_dir)
    if process.is_closed(0) and not (args.text or args.input):
        raise UserError("standard input is closed: give texts or --input FILE")

    def warn(line):
        say(line, sys.stderr)

    stream, name = open_input(args.input)
    settings = {key: getattr(args, key) for key in ("device", "batch_size", "seq_length", "vocab_file", "memory_limit")}
    tagger = Tagger(args.model_load_dir, log=warn, announce=warn if args.output is not None else None, **settings)
    given = (decode_argument(text).split() for text in args.text)
    read = (sentence.words for sentence in read_sentences(read_lines(stream, name), name, tagged=False, warn=warn)) if not args.text else ()
    count = 0
    with writer(args.output) as write:
        for line in rows_of(tagger, given if args.text else read):
            write(line)
            count += not line
        if not count:  # in this block, so that an earlier output stays
            raise UserError(f"{name}: there is no word in it")
    if tagger.cut:
        warn(f"warning: {tagger.cut} words have no token, most of them after the {tagger.seq_length} tokens of a sentence: their tag is O")
    warn_of_unknown(tagger, warn)


if __name__ == "__main__":
    run(main)
