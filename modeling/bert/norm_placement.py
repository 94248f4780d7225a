"""Where the layer norms of an encoder are (`Variant.layer_norms`).

A layer has two parts f, attention and feed-forward, each with a norm LN. Shapes: x [T, H]; see modeling/bert/encoder.py.
"""

from modeling.bert import names
from modeling.bert.variant import AFTER, BEFORE
from modeling.engine.workarounds import fan_out


class NormAfter:
    """BERT: x = LN(x + f(x))."""

    @staticmethod
    def inputs(_encoder, x, _norm):
        """(the input of f, the x of the sum)."""
        return fan_out(x, 2)

    @staticmethod
    def add(encoder, x, term, norm):
        """x + f(…), as the next part gets it."""
        return encoder.layer_norm(x + term, norm)

    @staticmethod
    def final(_encoder, x):
        """The output of the encoder from that of the last layer."""
        return x


class NormBefore:
    """GPT-2, MEAD's `pre-layer-norm`: x = x + f(LN(x)), and a norm of the encoder's output."""

    @staticmethod
    def inputs(encoder, x, norm):
        """As in `NormAfter`."""
        x, residual = fan_out(x, 2)
        return encoder.layer_norm(x, norm), residual

    @staticmethod
    def add(_encoder, x, term, _norm):
        """As in `NormAfter`."""
        return x + term

    @staticmethod
    def final(encoder, x):
        """As in `NormAfter`."""
        return encoder.layer_norm(x, names.ENCODER_NORM)


NORM_PLACEMENTS = {AFTER: NormAfter, BEFORE: NormBefore}
