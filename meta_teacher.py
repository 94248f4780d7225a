"""Step 2 of Meta-KD: trains the meta-teacher on all domains and keeps its best snapshot.

    python3 meta_teacher.py --task_name senti --model_load_dir uncased_L-12_H-768_A-12_oneflow \\
        --data_dir data/SENTI/ --num_epochs 63 --seed 42 --seq_length=128 --train_example_num 6480 \\
        --eval_example_num 720 --batch_size_per_device 24 --eval_batch_size_per_device 48 \\
        --eval_every_step_num 100 --learning_rate 5e-5 --resave_ofrecord --do_train --do_eval \\
        --vocab_file uncased_L-12_H-768_A-12/vocab.txt

Minimises the classification loss weighted by the prototypical scores of preprocess.py plus lambda times the
corrupted-domain loss. The snapshot that is best on dev is loaded again and counts the test split, where there is one.
The flags' eval_* speak of dev. Writes MODEL_SAVE_DIR/snapshot_best_mft_model_{task}_dev_{accuracy}, metrics.jsonl,
run.log, flags.json, curves.png and report.html.
"""

from modeling.bert.heads import check_domain_layers
from modeling.bert.variables import classifier_shapes, domain_head_shapes, encoder_shapes
from modeling.checkpoints.snapshot import Snapshot
from modeling.cli.errors import run
from modeling.cli.flags import META_TEACHER, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.corruption import with_corrupted_domains
from modeling.objectives.mft import META_METRICS, meta_objective, predict_logits
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import Phase
from modeling.run.evaluation import evaluate
from modeling.run.training import Training


def main():
    flags = parse_flags(META_TEACHER, __doc__)
    do_train, do_eval = check_modes(flags)
    phase = Phase(flags, flags.model_load_dir)
    if not do_train:
        phase.check_classifier()
    task, config, kernels = phase.task, phase.config, phase.kernels
    domain_layers = check_domain_layers(flags.domain_layers, config.num_hidden_layers)
    domain_loss_weight = phase.domain_loss_weight()

    train_records = phase.weighted_records() if do_train else None
    dev_records = phase.records("dev", name="eval")
    test_records = phase.test_records() if do_eval else None
    shapes = {
        **encoder_shapes(config),
        **classifier_shapes(config, task.num_labels),
        **domain_head_shapes(config, task.num_domains),
    }
    variables, train_records, dev_records, test_records = phase.variables(shapes, train_records, dev_records, test_records)

    @global_function(type="predict", variables=variables)
    def predict_job(variables, word_rows, input_mask, segment_ids):
        return predict_logits(variables, config, kernels, word_rows, input_mask, segment_ids)

    def split_evaluation(records, train_records=None):
        """A function that measures the teacher on a split."""
        batches = phase.plan.evaluation(records, flags.eval_batch_size_per_device, train_records)
        return lambda: evaluate(predict_job, records, batches, task, phase.device)

    evaluate_dev = split_evaluation(dev_records, train_records)
    if do_train:
        training = Training(phase, variables, train_records, dev_records, may_share_rows=True)

        @global_function(**training.settings)
        def train_job(variables, **batch):
            dropout = training.dropout.take(batch)
            return meta_objective(variables, config, kernels, dropout, domain_layers, domain_loss_weight, **batch)

        batches = with_corrupted_domains(training.batches(), task.num_domains, flags.seed, training.start_step, flags.corruption)
        best = BestSnapshot(phase, "mft", variables)
        training.run(train_job, batches, META_METRICS, evaluate_dev, best, domain_layers=domain_layers)
        variables.load(Snapshot(best.path))  # the test counts for the best snapshot, not for the last step
        phase.finish(best, evaluate_dev)
    else:
        phase.write_flags()
        phase.report("dev", evaluate_dev())
    if test_records is not None:
        phase.report("test", split_evaluation(test_records)())
    phase.write_report()


if __name__ == "__main__":
    run(main)
