"""The dropout masks of a PALM: those of the encoder, then those of the decoder (modeling/bert/dropout.py)."""

from modeling.bert.dropout import DropoutPlan


class PalmDropoutPlan(DropoutPlan):
    """Masks for sources and targets.

    Args:
        target_length: Y, tokens of the decoder's input.
        others: arguments of `DropoutPlan`.
    """

    def __init__(self, *others, target_length, **named):
        super().__init__(*others, **named)
        self._target_length = target_length

    def layers(self, batch, length, texts=None):  # noqa: ARG002  one text per row
        """The dropout layers of a graph, in order: embeddings; attention probabilities, attention output and layer output of each encoder
        layer; embeddings of the target; of each decoder layer the same as of an encoder layer, with a second attention after the first.

        Args:
            batch: rows per step.
            length: S, tokens per source.
        Returns:
            list of (rate, shape).
        """
        config, target = self._config, self._target_length
        heads = config.num_attention_heads
        states, own_states = ((config.hidden_dropout_prob, (batch * tokens, config.hidden_size)) for tokens in (length, target))
        attention, own, cross = (
            (config.attention_probs_dropout_prob, (batch, heads, *shape))
            for shape in ((length, length), (target, target), (target, length))
        )
        encoder = [states, *[attention, states, states] * config.num_hidden_layers]
        decoder = [own_states, *[own, own_states, cross, own_states, own_states] * config.dec_hidden_layers]
        return [(rate, shape) for rate, shape in (*encoder, *decoder) if rate > 0]
