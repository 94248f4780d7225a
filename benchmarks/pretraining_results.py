"""Measures what pre-training on the domains' own text is worth: arms of benchmarks/learners.py, with and without it.

    python3 benchmarks/pretraining_results.py --model_dir models/uncased_L-6_H-384_A-12_oneflow --data_dir ../shared/data \\
        --output_dir output/pretraining

Each encoder continues the one of --model_dir on one of the texts below, by each of --objectives; parts A, B and C of
benchmarks/learners.py then run with each of them, and with the one as it is (none). Texts that equal, contain or are contained in a test
row of any of these parts, or of SENTI, are left out.

    reviews  the unlabelled text of all domains of FDU-MTL
    first    that of every second domain, from the first one on
    second   that of the others: for a domain of `first` it is text of other domains, and the other way round
    SENTI    the training text of SENTI

    mlm            masked language modelling (recipes/pretrain_mlm.py)
    structural     with StructBERT's two objectives beside it
    discriminator  ELECTRA (recipes/pretrain_discriminator.py)
    pairs          the two halves of a text, by in-batch contrast (recipes/pretrain_pairs.py)

"own - other" compares `first` with `second` on each domain: the same kind and number of texts, of the domain itself or of others. In part C
the text of an unseen domain is seen without labels (in `reviews`, and in one of the halves). Each encoder has rates of its own, chosen on
dev as in benchmarks/learners.py. --part_flags has flags of that script for one part, such as "C: --rotations 0 1". --language_flags has
more flags of the pre-training, such as "--packing packed"; other ones than before need another --output_dir.

Finished runs do not run again, so the same command continues an interrupted measurement. At the end, and with --report_only at any time,
the script prints tables of what is finished, and writes them to OUTPUT_DIR/pretraining.html.
"""

if not __package__:
    import _root  # noqa: F401

import os
import shlex

import numpy as np

from benchmarks import learners
from benchmarks.learners_report import Table, interval_text, markdown, page
from benchmarks.learners_unseen import domain_means
from benchmarks.runs import best_snapshot, results_parser, rows_of, run_script, seconds_of
from benchmarks.unlabelled_texts import DEV_DRAW, ENCODERS, FIRST, SECOND, Texts
from modeling.cli.errors import UserError, run
from modeling.cli.flag_kinds import positive_float, positive_int
from modeling.report.page import write_document
from modeling.run.measures import ACCURACY, PERPLEXITY, RECALL, mean_interval

PAGE, NONE = "pretraining.html", "none"
ARMS = {  # by part, with the recipe that docs/results.md recommends there
    "A": ("mixing", "MFT", "contrastive, last step"),
    "B": ("mixing", "MFT", "mixing, mean vectors"),
    "C": ("mixing", "MFT"),
}
MLM = "mlm"
OBJECTIVES = {  # name -> script and flags
    MLM: ("recipes/pretrain_mlm.py",),
    "structural": ("recipes/pretrain_mlm.py", "--structural"),
    "discriminator": ("recipes/pretrain_discriminator.py",),
    "pairs": ("recipes/pretrain_pairs.py",),
}
ABOUT = "Pre-training on unlabelled text, before arms of benchmarks/learners.py."
DIFFERENCES = (
    "Differences in points on test to the encoder without such training, paired over domain, draw and seed, with a 95 % t interval over "
    "the domains. own - other: of each domain of FDU-MTL, the half with its text against the half without it."
)


def encoder_names(args):
    """The names of the encoders: those of their texts, with the objective behind them if it is another one than `MLM`."""
    return [_named(text, objective) for objective in args.objectives for text in args.encoders]


def _named(text, objective):
    return text if objective == MLM else f"{text}, {objective}"


def _parts_of(name):
    """(text, objective) of an encoder."""
    text, _, objective = name.partition(", ")
    return text, objective or MLM


def _file_name(name):
    """The name of an encoder in paths."""
    return name.replace(", ", "-")


def encoder_folder(args, name):
    """The run folder of an encoder."""
    return os.path.join(args.output_dir, "encoders", _file_name(name))


def continue_encoder(args, texts, name):
    """The pre-training of an encoder, unless it is finished."""
    text, objective = _parts_of(name)
    words = [*OBJECTIVES[objective], "--task_name", "learners", "--label_list", "0,1", "--data_dir", texts.data(_file_name(name))]
    words += ["--model_load_dir", os.path.abspath(args.model_dir), "--corpus_file", texts.file(text), "--use_task_text", "false"]
    words += ["--evaluation_text", "leave_out", "--seq_length", str(args.seq_length), "--seed", str(args.seeds[0])]
    words += ["--num_epochs", str(args.epochs), "--batch_size_per_device", str(args.batch_size)]
    words += ["--learning_rate", str(args.learning_rate), "--dev_every_step_num", str(args.dev_every)]
    words += ["--do_train", "--do_eval", "false", *shlex.split(args.language_flags)]
    run_script(words, encoder_folder(args, name))


def part_arguments(args, part, name):
    """The parsed command line of benchmarks/learners.py for a part and an encoder; None if the encoder is not finished."""
    model = os.path.abspath(args.model_dir)
    if name != NONE:
        try:
            model = best_snapshot(encoder_folder(args, name))
        except IndexError:
            return None
    words = ["--part", part, "--model_dir", model, "--data_dir", args.data_dir, "--arms", *(args.arms or ARMS[part])]
    words += ["--output_dir", os.path.join(args.output_dir, "learners", part, _file_name(name)), "--seq_length", str(args.seq_length)]
    words += ["--seeds", *map(str, args.seeds), *(["--report_only"] if args.report_only else [])]
    for given in args.part_flags:
        of, _, more = given.partition(":")
        words += shlex.split(more) if of.strip() == part else []
    return learners.parse(words)


def accuracies(part):
    """What a part of benchmarks/learners.py has measured: dict of arm -> dict of (domain, draw, seed) -> accuracy in per cent. In part C an
    arm has a number of rows per class in its name."""
    found = {}
    for arm, results in part.results().items():
        for key, value in results.items():
            if isinstance(value, dict):  # of part C: K -> accuracies
                found[f"{arm}, K = {key}"] = value
            else:
                found.setdefault(arm, {}).update({(name, key.draw, key.seed): one for name, one in value.accuracy.items()})
    return {arm: values for arm, values in found.items() if values}


def paired(ours, theirs):
    """ "+0.4 [-0.1, +0.9] (12)": the mean over the domains of what both have measured, ours minus theirs, and their number; "" without."""
    both = {key: value - theirs[key] for key, value in ours.items() if key in theirs}
    if not both:
        return ""
    means = domain_means(both)
    return f"{interval_text(*mean_interval(list(means.values())), sign='+')} ({len(means)})"


def of_halves(measured, arm, domains, own, objective=MLM):
    """The accuracies of an arm on the domains of FDU-MTL with the encoder of the half that has (`own`) or has not the domain's text."""
    found = {}
    for half, with_text in ((FIRST, domains[::2]), (SECOND, domains[1::2])):
        values = measured.get(_named(half, objective), {}).get(arm, {})
        found.update({key: value for key, value in values.items() if key[0] in domains and (key[0] in with_text) == own})
    return found


def differences_table(part, measured, domains):
    """The `Table` of a part.

    Args:
        measured: dict of encoder -> `accuracies`.
        domains: those of FDU-MTL in order; () for other data.
    """
    names, rows = [name for name in measured if name != NONE], []
    halves = [one for one in OBJECTIVES if {_named(FIRST, one), _named(SECOND, one)} <= set(names)] or [MLM]
    for arm, base in measured.get(NONE, {}).items():
        cells = [paired(measured[name].get(arm, {}), base) for name in names]
        cells += [paired(*(of_halves(measured, arm, domains, own, one) for own in (True, False))) for one in halves]
        whole = f"{np.mean(list(domain_means(base).values())):.1f}"
        rows.append([arm, whole, *(cell or "–" for cell in cells)])
    header = ["arm", NONE, *names, *(_named("own - other", one) for one in halves)]
    return Table(f"Part {part}", header, rows, DIFFERENCES) if rows else None


def encoders_table(args, texts):
    """The `Table` of the finished encoders: steps, seconds, and the measure on dev."""
    rows = []
    for name in encoder_names(args):
        folder = encoder_folder(args, name)
        dev = [row for row in rows_of(folder) if row["kind"] == "dev"]
        if dev and os.path.exists(os.path.join(folder, "seconds.json")):
            with open(texts.file(_parts_of(name)[0]), encoding="utf-8") as file:
                count = sum(1 for _ in file)
            measure = next(one for one in (PERPLEXITY, RECALL, ACCURACY) if one in dev[0])
            values = [row[measure] for row in dev]
            best = min(values) if measure == PERPLEXITY else max(values)
            what = [measure, *(f"{value:.{2 if measure == PERPLEXITY else 4}f}" for value in (values[0], best))]
            rows.append([name, f"{count:,}", f"{dev[-1]['step']:,}", f"{seconds_of(folder):.0f}", *what])
    header = ["encoder", "texts", "steps", "seconds", "measure on dev", "at the first evaluation", "best"]
    note = f"On the dev rows of FDU-MTL ({DEV_DRAW}). A head starts from initial values; the first evaluation is after --dev_every "
    note += "steps. Accuracy is that of the discriminator, recall that of the other half of a text among 100."
    return Table("Encoders", header, rows, note) if rows else None


def parse(argv=None):
    """The command line."""
    parser = results_parser(__doc__)
    parser.set_defaults(workers=1, seeds=[42])
    parser.add_argument("--encoders", nargs="+", choices=ENCODERS, default=list(ENCODERS), help="which texts are trained on")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=[MLM], help="how they are pre-trained")
    parser.add_argument("--parts", nargs="*", choices=("A", "B", "C"), default=["A", "B", "C"], help="parts of benchmarks/learners.py")
    parser.add_argument(
        "--arms", nargs="+", metavar="NAME", help="arms of these parts (default: mixing, MFT and what docs/results.md recommends)"
    )
    parser.add_argument("--part_flags", nargs="+", metavar='"PART: FLAGS"', default=[], help="more flags of benchmarks/learners.py")
    parser.add_argument("--language_flags", metavar='"FLAGS"', default="", help="more flags of the pre-training")
    parser.add_argument("--epochs", type=positive_int, default=3, help="passes over a text")
    parser.add_argument("--batch_size", type=positive_int, default=32, help="records per step")
    parser.add_argument("--learning_rate", type=positive_float, default=1e-4, help="of the pre-training")
    parser.add_argument("--dev_every", type=positive_int, default=250, help="steps between evaluations on dev")
    parser.add_argument("--seq_length", type=positive_int, default=128, help="tokens of a text, for a new --output_dir")
    parser.add_argument("--report_only", action="store_true", help="run nothing; print the tables of what is finished")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    args.output_dir = os.path.abspath(args.output_dir)
    for flag, folder in (("--model_dir", args.model_dir), ("--data_dir", args.data_dir)):
        if not os.path.isdir(folder):
            raise UserError(f"{flag} {folder}: no such folder")
    texts, failed, tables = Texts(args.data_dir, os.path.join(args.output_dir, "texts")), [], []
    if not args.report_only:
        jobs = [(name, lambda name=name: continue_encoder(args, texts, name)) for name in encoder_names(args)]
        failed += learners.work(jobs, args.workers)
    tables.append(encoders_table(args, texts))
    for letter in args.parts:
        measured = {}
        for name in (NONE, *encoder_names(args)):
            own = part_arguments(args, letter, name)
            if own is None:
                continue
            part = learners.part_of(own)
            if not args.report_only:
                failed += [f"{letter}, {name}: {job}" for job in learners.work(part.jobs(), args.workers)]
            measured[name] = accuracies(part)
        tables.append(differences_table(letter, measured, texts.reviews.domains if letter != "A" else ()))
    tables = list(filter(None, tables))
    print("\n".join(markdown(tables)), flush=True)
    if tables:
        print(f"page {write_document(os.path.join(args.output_dir, PAGE), page('Pre-training on unlabelled text', ABOUT, tables))}")
    if failed:
        raise UserError(f"{len(failed)} jobs failed: {'; '.join(failed)}")


if __name__ == "__main__":
    run(main)
