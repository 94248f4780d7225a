"""Step 2 of Meta Fine-tuning: trains the meta learner on all domains of a group and keeps its best snapshot.

    python3 meta_finetuning.py --task_name g1 --data_dir data/k-shot-cross/g1/16-42 \\
        --model_load_dir models/uncased_L-6_H-384_A-12_oneflow --num_epochs 63 --seed 42 \\
        --seq_length=128 --train_example_num 96 --dev_example_num 96 --batch_size_per_device 4 \\
        --dev_batch_size_per_device 2 --dev_every_step_num 100 --learning_rate 5e-5 \\
        --resave_ofrecord

Minimises the classification loss weighted by the prototypical scores of step 1 plus lambda times the corrupted-domain
loss. Writes MODEL_SAVE_DIR/snapshot_best_mft_model_{task}_dev_{accuracy}, metrics.jsonl, run.log, flags.json,
curves.png and report.html.
"""

from modeling.bert.heads import check_domain_layers
from modeling.bert.variables import classifier_shapes, domain_head_shapes, encoder_shapes
from modeling.cli.errors import run
from modeling.cli.flags import META_FINETUNING, check_modes, parse_flags
from modeling.engine.global_function import global_function
from modeling.objectives.corruption import with_corrupted_domains
from modeling.objectives.mft import META_METRICS, meta_objective, predict_logits
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.context import Phase
from modeling.run.evaluation import evaluate
from modeling.run.training import Training


def main():
    flags = parse_flags(META_FINETUNING, __doc__)
    do_train, _ = check_modes(flags)
    phase = Phase(flags, flags.model_load_dir)
    if not do_train:
        phase.check_classifier()
    task, config, kernels = phase.task, phase.config, phase.kernels
    domain_layers = check_domain_layers(flags.domain_layers, config.num_hidden_layers)
    domain_loss_weight = phase.domain_loss_weight()

    train_records = phase.weighted_records() if do_train else None
    dev_records = phase.records("dev")
    shapes = {
        **encoder_shapes(config),
        **classifier_shapes(config, task.num_labels),
        **domain_head_shapes(config, task.num_domains),
    }
    variables, train_records, dev_records = phase.variables(shapes, train_records, dev_records)

    @global_function(type="predict", variables=variables)
    def predict_job(variables, word_rows, input_mask, segment_ids):
        return predict_logits(variables, config, kernels, word_rows, input_mask, segment_ids)

    dev_batches = phase.plan.evaluation(dev_records, flags.dev_batch_size_per_device, train_records)

    def evaluate_dev():
        return evaluate(predict_job, dev_records, dev_batches, task, phase.device)

    if not do_train:
        phase.write_flags()
        phase.report("dev", evaluate_dev())
        phase.write_report()
        return

    training = Training(phase, variables, train_records, dev_records, may_share_rows=True)

    @global_function(**training.settings)
    def train_job(variables, **batch):
        dropout = training.dropout.take(batch)
        return meta_objective(variables, config, kernels, dropout, domain_layers, domain_loss_weight, **batch)

    batches = with_corrupted_domains(training.batches(), task.num_domains, flags.seed, training.start_step, flags.corruption)
    best = BestSnapshot(phase, "mft", variables)
    training.run(train_job, batches, META_METRICS, evaluate_dev, best, domain_layers=domain_layers)
    phase.finish(best, evaluate_dev)
    phase.write_report()


if __name__ == "__main__":
    run(main)
