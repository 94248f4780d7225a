"""The meta learner of MFT (section 3), which is also the meta-teacher of Meta-KD: one model trained on all domains.

    loss = mean_i t_i CE(y_i) + lambda * mean_i CE(z_i; domain head)

t_i is the prototypical score of sample i, and z_i is its corrupted domain. CE(y_i) may have class weights and label smoothing
(modeling/run/label_loss.py). meta_finetuning.py and meta_teacher.py differ only in their flags.
"""

from modeling.bert.heads import check_domain_layers
from modeling.bert.variables import classifier_shapes, domain_head_shapes, encoder_shapes
from modeling.engine.global_function import global_function
from modeling.objectives.corruption import with_corrupted_domains
from modeling.objectives.mft import meta_metrics, meta_objective, predict_logits
from modeling.run.best_snapshot import BestSnapshot
from modeling.run.evaluation import SplitEvaluator, evaluate_splits
from modeling.run.held_out import other_domains
from modeling.run.label_loss import choose_label_loss
from modeling.run.model_loading import load_model
from modeling.run.start import start_evaluation
from modeling.run.training import Training
from ofrecord_util.errors import UserError


def domain_loss_weight(context) -> float:
    """lambda. It is 0 with --use_domain_loss false, and if the task has only one domain.

    Raises:
        UserError: --held_out_domains leaves one domain.
    """
    flags, held_out = context.flags, context.splits.held_out
    left = context.task.num_domains - len(held_out)
    if not flags.use_domain_loss:
        return 0.0
    if held_out and left < 2 and flags.domain_loss_weight:
        raise UserError(
            f"--held_out_domains {','.join(flags.held_out_domains)}: one domain is left, and the domain loss needs two: name fewer, or "
            "give --use_domain_loss false"
        )
    if left < 2:
        context.log("only one domain: there are no corrupted domains, so the domain loss is off")
        return 0.0
    if left == 2 and flags.domain_loss_weight:
        context.log("two domains: the corrupted domain of a sample is always the other one, so --corruption has no effect")
    return flags.domain_loss_weight


def run_meta_learner(context, train, dev, test, batch_sizes):
    """Trains the meta learner and evaluates its best snapshot on dev and test.

    Args:
        context: `RunContext`.
        train: training `Records` with their sample weights, or None to evaluate only.
        dev: `Records`.
        test: `Records`, or None.
        batch_sizes: samples per evaluation batch, as for `SplitEvaluator`.
    Returns:
        `BestSnapshot`, or None if the run has not trained.
    """
    flags, task, config, kernels = context.flags, context.task, context.config, context.engine.kernels
    domain_layers, weight = check_domain_layers(flags.domain_layers, config.num_hidden_layers), 0.0
    if train is not None:
        weight = domain_loss_weight(context)
    shapes = {
        **encoder_shapes(config),
        **classifier_shapes(config, task.num_labels),
        **domain_head_shapes(config, task.num_domains),
    }
    variables, train, dev, test = load_model(context, shapes, train, dev, test)

    @global_function(type="predict", variables=variables, engine=context.engine)
    def predict_job(variables, **text):
        return predict_logits(variables, config, kernels, **text)

    evaluator, best = SplitEvaluator(context, predict_job, {"dev": dev, "test": test}, batch_sizes, train), None
    if train is None:
        start_evaluation(context, variables)
    else:
        training = Training(context, variables, train, may_share_rows=True)
        label_loss, smoothness = choose_label_loss(context, train.label), training.smoothness

        @global_function(**training.settings)
        def train_job(variables, **batch):
            dropout = training.dropout.take(batch)
            return meta_objective(
                variables, config, kernels, dropout, domain_layers, weight, **batch, label_loss=label_loss, smoothness=smoothness
            )

        def corrupted(batches, first_step):
            domains = other_domains(context.splits.held_out, task)
            return with_corrupted_domains(batches, task.num_domains, flags.seed, first_step, flags.corruption, domains)

        best, batches = BestSnapshot(context, "mft", variables), corrupted(training.batches(), training.start_step)
        fisher = corrupted(training.fisher_batches(), training.fisher_step)
        training.run(train_job, batches, meta_metrics(smoothness), evaluator, best, fisher, domain_layers=domain_layers)
    evaluate_splits(context, evaluator, best)
    return best
