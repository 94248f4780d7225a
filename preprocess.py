"""Step 1 of Meta Fine-tuning and Meta-KD: writes the OFRecord files and the prototypical scores of the training samples.

    python3 preprocess.py --task_name g1 --model_load_dir models/uncased_L-6_H-384_A-12_oneflow \\
        --data_dir data/k-shot-cross/g1/16-42 --seed 42 --seq_length=128 --train_example_num 96 \\
        --dev_example_num 96 --resave_ofrecord

Writes DATA_DIR/ofrecord/{train,dev,test}/ and, in ofrecord/train/, weight.npy (one score per training sample; the next steps
weight their classification loss with it), prototypes.npz, and map.npz (the samples in a plane, for the reports of runs).
"""

import os

import numpy as np

from modeling.bert.config import MAX
from modeling.bert.encoder import build_bert
from modeling.bert.pooling import pool
from modeling.bert.variables import encoder_shapes
from modeling.cli.errors import UserError, run
from modeling.cli.flags import PREPROCESS, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.prototypes import compute_prototypes, non_negative, prototypical_scores, score_statistics, write_prototypes
from modeling.report.projection import principal_plane
from modeling.run.context import RunContext
from modeling.run.evaluation import predict
from modeling.run.held_out import names_of
from modeling.run.model_loading import load_variables
from modeling.run.start import announce_predictions
from ofrecord_util.scores import EmbeddingMap
from ofrecord_util.tasks import HELD_OUT_KEY


def main():
    flags = parse_flags(PREPROCESS, __doc__)
    if not flags.model_load_dir:
        raise UserError("--model_load_dir is needed: prototypes are means of the representations of a pretrained encoder")
    context = RunContext(flags, flags.model_load_dir, trains=False)
    task, config, log = context.task, context.config, context.log

    splits = (("train", "train"), ("dev", "dev"), ("test", "eval"))  # with the names of their flags
    written = [(split, name) for split, name in splits if context.splits.must_write(split, name)]
    context.splits.check_texts([split for split, _ in written])
    records = context.splits.records("train")  # `store_scores` writes those of the training split
    variables = load_variables(context, encoder_shapes(config), context.snapshot)
    samples = records.samples()
    may_share = flags.pooling != MAX  # the maximum over a text's tokens needs a row for each text
    batches = context.bucketing.evaluation(samples, flags.preprocess_batch_size_per_device, may_share=may_share, all_tokens=True)
    announce_predictions(context, variables)
    context.start_log()
    for split, name in written:
        if split != "train":
            context.splits.records(split, name)

    @global_function(type="predict", variables=variables, engine=context.engine)
    def embed_job(variables, **text):
        bert = build_bert(variables, config, context.engine.kernels.for_prediction, **text)
        return pool(bert.hidden_states[-1], text["input_mask"], flags.pooling, context.engine.device, text.get("starts"))  # e(x), [B, H]

    embeddings = predict(embed_job, samples, batches)
    held_out = context.splits.held_out
    used = ~np.isin(records.domain, held_out)  # the rows that may train a model
    if held_out:
        log(f"--held_out_domains: {len(used) - used.sum()} samples of {names_of(held_out, task)} are in no prototype, {used.sum()} are")
        if not used.any():
            raise UserError(f"--held_out_domains {','.join(flags.held_out_domains)} leaves no training samples: name fewer domains")
    prototypes = compute_prototypes(embeddings[used], records.domain[used], records.label[used], task.num_domains, task.num_labels)
    scores = prototypical_scores(embeddings, records.domain, records.label, prototypes, flags.prototype_alpha)
    if not np.isfinite(scores).all():
        raise UserError(
            f"{context.snapshot.path}: its representations are not finite, so scores cannot be computed: give another --model_load_dir"
        )
    scores = non_negative(scores, log)
    if np.count_nonzero(prototypes.counts.any(axis=1)) == 1:
        log("only one domain: a score is the cosine similarity to the prototype of the sample's label")
    statistics = score_statistics(scores, records.domain, task.domains)

    info = {"alpha": flags.prototype_alpha, "pooling": flags.pooling, "snapshot_digest": context.snapshot.digest(), "by_domain": statistics}
    info[HELD_OUT_KEY] = [task.domains[domain] for domain in held_out]
    plane = principal_plane(embeddings[used])
    centroids = np.where(prototypes.counts[..., None] > 0, plane.apply(prototypes.centroids), np.float32(np.nan))
    embedding_map = EmbeddingMap(plane.apply(embeddings), records.domain, records.label, centroids, plane.explained)
    context.splits.dataset.store_scores(records, scores, info, embedding_map)
    path = write_prototypes(os.path.join(flags.data_dir, "ofrecord", "train"), prototypes, statistics, task)
    for name, values in statistics.items():
        log(
            "prototypical scores of {}: {count} samples, mean {mean:.4f}, std {std:.4f}, min {min:.4f}, max {max:.4f}".format(
                name, **values
            )
        )
    log(f"scores of {len(scores)} samples (mean {float(np.mean(scores)):.4f}) and prototypes written to {os.path.dirname(path)}")


if __name__ == "__main__":
    run(main)
