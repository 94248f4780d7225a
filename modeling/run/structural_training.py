"""A training with the structural objectives of StructBERT beside masked language modelling (modeling/objectives/structural.py)."""

import math

from modeling.bert.variables import encoder_shapes, sentence_head_shapes, token_head_shapes
from modeling.run.language_training import LanguageTraining
from modeling.run.measures import PERPLEXITY
from ofrecord_util.errors import UserError
from ofrecord_util.structure import SENTENCE_CLASSES, StructuralSteps, most_shuffled


def structural_shapes(context):
    """dict of name -> shape of the variables.

    Raises:
        UserError: the model has no token type for the second sentence of a pair.
    """
    config = context.config
    if config.type_vocab_size < 2:
        at = context.snapshot.path if context.snapshot else "--type_vocab_size"
        raise UserError(f"--structural: {at} has {config.type_vocab_size} token type, but pairs of sentences need 2: take another model")
    return {**encoder_shapes(config), **token_head_shapes(config), **sentence_head_shapes(config, SENTENCE_CLASSES)}


class StructuralTraining(LanguageTraining):
    """One training on a corpus of sentences. Arguments and attributes as for `LanguageTraining`."""

    added_tokens = 1  # the [SEP] between two sentences
    further_places = staticmethod(most_shuffled)

    def further_metrics(self, row):
        """The perplexity of masked tokens, from their mean loss."""
        return {PERPLEXITY: math.exp(min(row["mlm_loss"], 700.0))}

    def _masked(self, epochs, start_step):
        flags = self._context.flags
        steps = StructuralSteps(self._corpus, self._masking, self.batch_size, epochs, flags.seed, flags.shuffle_window)
        return (steps.batch(step, self.layout.lengths) for step in range(start_step, steps.steps))
