"""A training of generator and discriminator on a corpus (modeling/objectives/replaced_tokens.py); the discriminator on dev and test."""

from modeling.bert.dropout import DropoutPlan
from modeling.bert.names import POOLER_PREFIX
from modeling.bert.variables import encoder_shapes, replaced_head_shapes
from modeling.objectives.replaced_tokens import generator_config, generator_shapes
from modeling.run.language_training import LanguageEvaluator, LanguageTraining, per_row
from modeling.run.measures import ORIGINAL_SHARE
from modeling.run.resources import Model
from ofrecord_util.errors import UserError
from ofrecord_util.replacing import iterate_replaced, noise_of
from ofrecord_util.seeds import fixed_sample_stream

_SAMPLE_SCORES = 6  # numbers per drawn token and word of the vocabulary that a graph holds to sample


def plan_generator(context):
    """The `BertConfig` of the generator of a run, which is logged."""
    config = generator_config(context.config, context.flags.generator_size)
    context.log(
        f"generator of {config.num_hidden_layers} layers x {config.hidden_size}, {config.num_attention_heads} heads, with the embeddings "
        "of the discriminator; a snapshot holds the discriminator alone"
    )
    return config


def check_trains(do_train):
    """Raises a UserError if a run does not train: no snapshot has a generator, and without one no token is replaced."""
    if not do_train:
        raise UserError("--do_train false: a snapshot has no generator that could replace tokens, so there is nothing to measure")


def discriminator_shapes(context, generator):
    """dict of name -> shape of the variables of both models. The pooler is not trained, so it is there only if the snapshot has it."""
    config, snapshot = context.config, context.snapshot
    has_pooler = snapshot is not None and any(name.startswith(POOLER_PREFIX) for name in snapshot.sizes)
    shapes = {name: shape for name, shape in encoder_shapes(config).items() if has_pooler or not name.startswith(POOLER_PREFIX)}
    return {**shapes, **replaced_head_shapes(config), **generator_shapes(config, generator)}


class DiscriminatorTraining(LanguageTraining):
    """One training on a corpus.

    Args:
        generator: `BertConfig`.
        context, variables, corpus, masking: as for `LanguageTraining`.
    """

    word_uses = 3  # the embeddings of both models, and the output weights of the generator

    def __init__(self, context, variables, corpus, masking, generator):
        self.generator = generator
        super().__init__(context, variables, corpus, masking)

    def _per_row(self):
        config, masking = self._context.config, self._masking
        head = per_row(masking, config)
        masks = DropoutPlan(self.generator, 0, "cpu")

        def numbers(graph):
            samples = masking.places(graph.length) * config.vocab_size * _SAMPLE_SCORES
            return head(graph) + samples + (masks.kept_numbers(1, graph.length) if graph.trains else 0)

        return numbers

    def _other_models(self):
        return (Model(self.generator, 0, 1, in_train_graph=True, graphs=tuple(self._context.bucketing.graphs)),)

    def further_metrics(self, row):  # noqa: ARG002
        """None: no perplexity."""
        return {}

    def _masked(self, epochs, start_step):
        flags = self._context.flags
        run = self._corpus, self._masking, self.batch_size, self.layout.lengths, epochs, flags.seed, flags.shuffle_window
        return iterate_replaced(*run, start_step)


class DiscriminatorEvaluator(LanguageEvaluator):
    """Measures the discriminator on all tokens of a split. The drawn tokens of a row, and the noise of their samples, are always the same;
    the samples follow the generator. Arguments as for `LanguageEvaluator`; the job returns `predict_replaced`, [B, 7]."""

    measure = ORIGINAL_SHARE

    def _inputs(self, batch):
        streams = [fixed_sample_stream(row) for row in batch["idxs"].tolist()]
        inputs = super()._inputs(batch)
        return {**inputs, "original_rows": batch["word_rows"], "noise": noise_of(streams, inputs["masked_ids"].shape[1])}

    def _measures(self, sums):
        loss, hits, replaced, total = sums[:, 3:].sum(axis=0).tolist()
        return {
            "accuracy": round(hits) / round(total),
            "correct": round(hits),
            "total": round(total),
            "cross_entropy": loss / total,
            ORIGINAL_SHARE: 1.0 - replaced / total,
        }
