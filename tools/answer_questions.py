"""Answers questions about texts with a snapshot of recipes/span_answering.py.

    python3 tools/answer_questions.py --model_load_dir SNAPSHOT --input questions.json \\
        --output answers.json --nbest nbest.json
    python3 tools/answer_questions.py --model_load_dir SNAPSHOT --question "Where does Ann live?" \\
        --context "Ann lives in Oslo."

--input is a file in the form of SQuAD; its answers are not read. --output gets a JSON object with the answer to each question by id, which
SQuAD's official script reads, --nbest the best answers with their probabilities. With --question and --context the best answers are
printed: answer, tab, probability.
"""

if not __package__:
    import _root  # noqa: F401

import sys

from tqdm import tqdm

from modeling.answerer import Answerer
from modeling.cli.choices import WINDOW_TOKENS
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import batch_size, count, positive_float, positive_int
from modeling.run.answering import write_answers
from ofrecord_util.escaping import for_terminal, say
from ofrecord_util.question_text import read_questions
from tools.texts import check_outputs, decode_argument, one_line, prepare_output, warn_of_unknown

_AS_TRAINED = f" (default: as in training, else {WINDOW_TOKENS})"


def check_flags(parser, args):
    """Raises a UserError where the flags contradict each other."""
    if (args.question is None) != (args.context is None) or (args.question is None) == (args.input is None):
        raise UserError("give --input FILE, or --question and --context")
    for name in ("question", "context"):
        text = getattr(args, name)
        if text is not None and not text.strip():
            raise UserError(f"--{name} {text!r:.40} has no word: give a text")
    if args.input is None:
        if args.output or args.nbest:
            raise UserError("--output and --nbest belong to --input: the answers to --question are printed")
        prepare_output(parser, "redirect it to a file")
    elif not (args.output or args.nbest):
        raise UserError("--input: give --output FILE, --nbest FILE, or both")
    check_outputs(args, args.model_load_dir)


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("--model_load_dir", required=True, metavar="SNAPSHOT", help="snapshot of recipes/span_answering.py")
    parser.add_argument("--input", metavar="FILE", help="questions in the form of SQuAD")
    parser.add_argument("--output", metavar="FILE", help="file for the answer to each question")
    parser.add_argument("--nbest", metavar="FILE", help="file for the best answers to each question")
    parser.add_argument("--question", help="a question")
    parser.add_argument("--context", help="the text that has its answer")
    parser.add_argument("--doc_stride", type=count, help="tokens between the starts of two windows of a text" + _AS_TRAINED)
    parser.add_argument("--max_query_length", type=count, help="tokens of a question; longer ones are cut" + _AS_TRAINED)
    parser.add_argument("--n_best_size", type=count, default=20, help="answers of a question")
    parser.add_argument("--max_answer_length", type=count, default=30, help="tokens of an answer at most")
    parser.add_argument("--no_answer", action="store_true", help="a question may have no answer in its text (SQuAD 2.0)")
    parser.add_argument("--batch_size", type=batch_size, default=32, help="windows per batch")
    parser.add_argument("--seq_length", type=positive_int, help="tokens of a window (default: as in training)")
    parser.add_argument("--vocab_file", help="vocabulary (default: the one of the snapshot)")
    parser.add_argument(
        "--memory_limit", type=positive_float, metavar="GB", help="GB of memory to use on a CPU (default: nine tenths of the free memory)"
    )
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="device for the computation")
    args = parser.parse_args()
    check_flags(parser, args)

    def warn(line):
        say(line, sys.stderr)

    if args.input is None:
        ids, given = [""], [tuple(decode_argument(text) for text in (args.question, args.context))]
    else:
        questions = read_questions(args.input, answered=False)
        ids, given = [each.id for each in questions], [(each.question, each.context) for each in questions]
    names = ("doc_stride", "max_query_length", "n_best_size", "max_answer_length", "no_answer")
    more = ("batch_size", "seq_length", "vocab_file", "memory_limit", "device")
    settings = {name: getattr(args, name) for name in (*names, *more)}
    answerer = Answerer(args.model_load_dir, log=warn, announce=warn if args.input else None, **settings)
    found = list(tqdm(answerer(given), desc="answer", unit="question", total=len(given), disable=None, delay=1, leave=False))
    if args.input is None:
        shown = for_terminal if sys.stdout.isatty() else str
        for each in found[0]:
            sys.stdout.write(f"{shown(one_line(each['text']))}\t{each['probability']:.6f}\n")
    if args.output:
        write_answers(args.output, ids, [each[0]["text"] for each in found])
    if args.nbest:
        write_answers(args.nbest, ids, found)
    warn_of_unknown(answerer, warn)


if __name__ == "__main__":
    run(main)
