"""The pre-training of ELECTRA (arXiv 2003.10555): a generator fills masked places, a discriminator tells which tokens were replaced.

    mean CE of the generator at the drawn tokens  +  weight * mean binary CE of the discriminator at all tokens but padding

A sample of the generator replaces each drawn token, also one that the generator has seen. No gradient flows through the samples. A sample
that equals the token counts as original. The generator has layers and a head of its own; word, position and type embeddings and their layer
norm are those of the discriminator. A linear layer projects them to its width, and its head, BERT's of masked language modelling whatever
head a snapshot has, predicts with the word embeddings.
ofrecord_util/replacing.py makes the batches. Each mean is over the whole batch (see modeling/objectives/masked_lm.py).
"""

import dataclasses

from modeling.bert.config import BertConfig
from modeling.bert.encoder import build_bert
from modeling.bert.heads import replaced_logits
from modeling.bert.names import (
    EMBEDDINGS_PREFIX,
    ENCODER_NORM,
    GENERATOR_PREFIX,
    GENERATOR_PROJECTION,
    TOKEN_DENSE,
    WORD_EMBEDDINGS,
    layer_of,
)
from modeling.bert.variables import encoder_shapes, token_head_shapes
from modeling.bert.variant import TRANSFORMED
from modeling.engine import parallel
from modeling.engine.runtime import flow
from modeling.engine.workarounds import fan_out
from modeling.objectives.losses import stack_metrics
from modeling.objectives.masked_lm import predicted_tokens

_HEAD_SIZE = 64
REPLACED_METRICS = (
    "loss",
    "generator_loss",
    "discriminator_loss",
    "generator_accuracy",
    "discriminator_accuracy",
    "original_share",
)


def generator_config(config: BertConfig, share: float) -> BertConfig:
    """The sizes of a generator: `share` of the width, all layers, four times the width between them, heads of 64 or more.

    Its head is never a plain one, which has no layer that could bring its states to the width of the word embeddings.

    Args:
        config: of the discriminator.
        share: above 0, at most 1.
    """
    hidden = max(1, round(config.hidden_size * share))
    heads = next(number for number in range(max(1, hidden // _HEAD_SIZE), 0, -1) if hidden % number == 0)
    variant = dataclasses.replace(config.variant, token_head=TRANSFORMED)
    return dataclasses.replace(config, hidden_size=hidden, num_attention_heads=heads, intermediate_size=4 * hidden, variant=variant)


def generator_shapes(config: BertConfig, generator: BertConfig) -> dict:
    """dict of name -> shape of the variables that only the generator has. No snapshot stores them.

    Args:
        config: of the discriminator, whose embeddings the generator shares.
        generator: of `generator_config`.
    """
    inner, outer = generator.hidden_size, config.hidden_size
    head = token_head_shapes(dataclasses.replace(config, variant=generator.variant))  # it ends in the width of the embeddings
    all_shapes = encoder_shapes(generator).items()
    shapes = {name: shape for name, shape in all_shapes if layer_of(name) is not None or name.startswith(ENCODER_NORM)}
    shapes.update({**head, f"{TOKEN_DENSE}-weight": (inner, outer)})
    projection = {f"{GENERATOR_PROJECTION}-weight": (outer, inner), f"{GENERATOR_PROJECTION}-bias": (inner,)}
    return {**projection, **{GENERATOR_PREFIX + name: shape for name, shape in shapes.items()}}


class _View:
    """The graph's view of the variables of one of the two models.

    Args:
        variables: the graph's view of all variables.
        words: list of tensors equal to the word embeddings, one for each use.
        prefix: of the names of the variables other than embeddings.
    """

    def __init__(self, variables, words, prefix=""):
        self._variables, self._words, self._prefix = variables, iter(words), prefix

    def _name(self, name):
        return name if name.startswith(EMBEDDINGS_PREFIX) else self._prefix + name

    def get(self, name):
        return next(self._words) if name == WORD_EMBEDDINGS else self._variables.get(self._name(name))

    def fused(self, *names):
        return self._variables.fused(*map(self._name, names))


def with_samples(original_rows, masked_places, sampled):
    """The tokens of a discriminator, and which of them are others than before.

    Args:
        original_rows: int32 [B, S].
        masked_places: float32 [B, P, S], 1 at the place of each drawn token.
        sampled: int64 [B, P], samples; those without a place are not used.
    Returns:
        (int32 [B, S], int32 [B, S]).
    """
    samples = sampled.to(flow.float32).reshape(*sampled.shape, 1) * masked_places  # no product of matrices: ids need all digits
    kept = original_rows.to(flow.float32) * (1.0 - masked_places.sum(dim=1))
    rows = (kept + samples.sum(dim=1)).to(flow.int32)
    return rows, (rows != original_rows).to(flow.int32)


def binary_cross_entropy(kernels, logits, label):
    """-log of the probability that the sigmoid of a logit gives to the label 0 or 1: that of the softmax of (0, logit).

    In OneFlow 0.8.0 a graph follows the label back to the generator, whatever is detached, unless the label is an index.

    Args:
        kernels: from `select_kernels`.
        logits: [T, 1].
        label: int32 [T].
    Returns:
        [T].
    """
    zeros = parallel.constant(tuple(logits.shape), 0.0, kernels.device)
    return kernels.index_cross_entropy(flow.cat([zeros, logits], dim=1), label)


def replaced_values(
    variables,
    config: BertConfig,
    generator: BertConfig,
    kernels,
    dropout,
    word_rows,
    input_mask,
    segment_ids,
    masked_places,
    masked_ids,
    original_rows,
    noise,
):
    """What both models predict.

    Args:
        variables: the graph's view of a `Variables` that holds all word embeddings.
        config, generator: `BertConfig`s.
        kernels: from `select_kernels`.
        dropout: the `Dropout` of the step, or None.
        word_rows, input_mask, segment_ids: see `build_bert`; word_rows with masks.
        masked_places, masked_ids: as for `predicted_tokens`.
        original_rows: int32 [B, S], word_rows without masks.
        noise: float32 [B, P], see `kernels.sample`.
    Returns:
        (CE and hits of the generator, [B, P]; CE and hits of the discriminator, [B, S]; 1 where a token was replaced, float32 [B, S]).
    """
    first, second, third = fan_out(variables.get(WORD_EMBEDDINGS), 3)
    view = _View(variables, (first, second), GENERATOR_PREFIX)

    def project(x):
        return kernels.linear(x, variables.get(f"{GENERATOR_PROJECTION}-weight"), variables.fused(f"{GENERATOR_PROJECTION}-bias"))

    masked = build_bert(view, generator, kernels, word_rows, input_mask, segment_ids, dropout, pools=False, project=project)
    losses, hits, logits = predicted_tokens(view, generator, kernels, masked.hidden_states[-1], masked_places, masked_ids)
    sampled = kernels.sample(logits, noise.reshape(-1, 1)).reshape(*masked_ids.shape)
    rows, replaced = with_samples(original_rows, masked_places, sampled)
    bert = build_bert(_View(variables, (third,)), config, kernels, rows, input_mask, segment_ids, dropout, pools=False)
    states = bert.hidden_states[-1].reshape(-1, config.hidden_size)
    scores = replaced_logits(variables, kernels, states)  # [B S, 1]
    token_losses = binary_cross_entropy(kernels, scores, replaced.reshape(-1)).reshape(*rows.shape)
    right = ((scores.reshape(*rows.shape) > 0).to(flow.int32) == replaced).to(flow.float32)
    return losses, hits, token_losses, right, replaced.to(flow.float32)


def replaced_token_objective(
    variables,
    config: BertConfig,
    generator: BertConfig,
    kernels,
    dropout,
    weight,
    masked_weights,
    token_weights,
    loss_mask,  # noqa: ARG001  the weights hold it
    **batch,
):
    """The loss of a training step.

    Args:
        weight: of the discriminator's loss.
        masked_weights: float32 [B, P], token_weights: float32 [B, S], of `corpus_batches.batch_weights`.
        variables, config, generator, kernels, dropout, batch: as for `replaced_values`.
    Returns:
        (loss, metrics [6]) in the order of REPLACED_METRICS. The last one is the accuracy of calling every token original.
    """
    losses, hits, token_losses, right, replaced = replaced_values(variables, config, generator, kernels, dropout, **batch)
    of_generator, generator_hits = ((values * masked_weights).sum(dim=1).mean() for values in (losses, hits))
    weighted = ((values * token_weights).sum(dim=1).mean() for values in (token_losses, right, 1.0 - replaced))
    of_discriminator, accuracy, original = weighted
    loss = of_generator + of_discriminator * weight
    return loss, stack_metrics(loss, of_generator, of_discriminator, generator_hits, accuracy, original)


def predict_replaced(variables, config: BertConfig, generator: BertConfig, kernels, masked_weights, **batch):
    """[B, 7] of a predict function, sums of each row without dropout: CE and hits of the generator, drawn tokens; CE and hits of the
    discriminator, replaced tokens, tokens."""
    kernels = kernels.for_prediction
    losses, hits, token_losses, right, replaced = replaced_values(variables, config, generator, kernels, None, **batch)
    tokens = batch["input_mask"].to(flow.float32)
    of_generator = [(losses * masked_weights).sum(dim=1), (hits * masked_weights).sum(dim=1), masked_weights.sum(dim=1)]
    of_discriminator = [(values * tokens).sum(dim=1) for values in (token_losses, right, replaced)]
    return flow.cat([column.reshape(-1, 1) for column in (*of_generator, *of_discriminator, tokens.sum(dim=1))], dim=1)
