"""Runs Meta Fine-tuning and its baselines on reviews of three domains and compares them in a table (`make demo`).

python3 tools/demo.py --model_dir models/uncased_L-6_H-384_A-12_oneflow --output_dir output
"""

if not __package__:
    import _root  # noqa: F401

import shutil

from modeling.cli.errors import run
from tools.demo_prototypes import write_prototype_classifier
from tools.demo_steps import (
    DOMAINS,
    PROGRESS,
    Demo,
    accuracies,
    compared,
    count,
    demo_parser,
    from_root,
    predict_line,
    print_paragraph,
    print_table,
)

LABEL_SENTENCES = "data/label-sentences/negative-positive.tsv"


def main():
    parser = demo_parser(__doc__)
    parser.add_argument("--epochs", type=count, default="4", help="epochs of the models of all domains")
    parser.add_argument("--domain_epochs", type=count, default="5", help="epochs of the models of one domain")
    parser.add_argument("--finetuning_epochs", type=count, default="2", help="epochs of step 3")
    parser.add_argument("--pair_steps", type=count, default="240", help="steps of metric learning, of 16 pairs each")
    args = parser.parse_args()
    demo = Demo(args, "demo")
    many = ("--num_epochs", args.epochs, "--learning_rate", "1e-4", "--dev_every_step_num", "72")
    alone = ("--num_epochs", args.domain_epochs, "--learning_rate", "1e-4", "--dev_every_step_num", "30", "--resave_ofrecord")
    further = ("--num_epochs", args.finetuning_epochs, "--learning_rate", "2e-5", "--dev_every_step_num", "12")
    pairs = ("--num_steps", args.pair_steps, "--dev_every_step_num", args.pair_steps, "--learning_rate", "2e-5")

    demo.preprocess()
    untrained = {}
    for domain in DOMAINS:
        name = f"prototypes-{domain}"
        snapshot = demo.path(name)
        write_prototype_classifier(from_root(snapshot), from_root(args.model_dir), from_root(demo.data()), domain)
        untrained.update(demo.label(f"Baseline: the nearest prototype, without training: {domain}", name, snapshot, domain))
        shutil.rmtree(from_root(snapshot))  # it is a copy of the encoder
    for domain in DOMAINS:
        demo.train(f"Baseline: one domain alone: {domain}", "finetuning.py", f"alone-{domain}", args.model_dir, *alone, part=domain)
    mixing = demo.train("Baseline: all domains mixed", "recipes/domain_mixing.py", "mixing", args.model_dir, *many)
    meta = demo.train("Step 2: the meta learner, trained on all domains", "meta_finetuning.py", "meta", args.model_dir, *many)
    for domain in DOMAINS:
        demo.train(f"Step 3: fine-tuning on {domain}", "finetuning.py", f"finetuned-{domain}", meta, *further, part=domain)
    metric = demo.train("The recommended recipe: metric learning, with sentences that say what a label means", "recipes/metric_learning.py",
                        "pairs", args.model_dir, *pairs, "--label_sentences", LABEL_SENTENCES, shared=PROGRESS)  # fmt: skip

    single = demo.hits(*(f"alone-{domain}" for domain in DOMAINS))
    mixed = demo.label("Test sentences: all domains mixed", "mixing-test", mixing)
    learner = demo.label("Test sentences: the meta learner", "meta-test", meta)
    finetuned = demo.hits(*(f"finetuned-{domain}" for domain in DOMAINS))
    paired = demo.label("Test sentences: metric learning", "pairs-test", metric)
    models = {
        "encoder, nearest prototype": untrained,
        "one domain alone": single,
        "all domains mixed": mixed,
        "MFT: meta learner": learner,
        "MFT: fine-tuned per domain": finetuned,
        "metric learning, label sentences": paired,
    }
    rows = [(name, *accuracies(hits)) for name, hits in models.items()]
    print_table(f"Test accuracy on {demo.data_dir}, {demo.seconds():.0f} seconds", ("", *DOMAINS, "all"), rows)
    per_domain = len(untrained) // len(DOMAINS)
    print_paragraph(
        f"How to read it: each number is the share of a domain's {per_domain} test sentences that a model labels correctly. Guessing gives "
        "50 %. The first row trains no model: it compares a sentence with the mean vectors of the training text of its domain. The second "
        "row trains one model per domain on its text, the third one model on the text of all domains. "
        "The next two are the two steps of MFT on the same text. The last one, the recommended recipe for few rows, trains on pairs of "
        'texts, and on sentences such as "it was terrible" for each label.'
    )
    print("What was gained, on the same test sentences, with one seed:")
    print("- " + compared("all domains mixed", mixed, "one domain alone", single))
    print("- " + compared("MFT, both steps,", finetuned, "plain mixing of the domains", mixed))
    print("- " + compared("MFT's meta learner", learner, "plain mixing of the domains", mixed))
    print("- " + compared("Metric learning with label sentences", paired, "plain mixing of the domains", mixed))
    print(f"\nreport   {demo.path('meta')}/report.html; each folder next to it has its own")
    print(f"try it   {predict_line(metric)}")


if __name__ == "__main__":
    run(main)
