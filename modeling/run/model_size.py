"""The sizes of the model that a run builds: what the snapshot says, what the flags say, and where the two contradict each other."""

import dataclasses

from modeling.bert.config import BertConfig
from modeling.bert.names import CLASSIFIER
from modeling.cli.flags import MODEL_SIZE_DEFAULTS, PREPROCESS
from ofrecord_util.errors import UserError


def resolve_config(flags, snapshot):
    """The encoder's sizes: the snapshot's where there is one, else the flags'.

    Raises:
        UserError: a given flag contradicts the snapshot.
    """
    given = {name: getattr(flags, name) for name in MODEL_SIZE_DEFAULTS if getattr(flags, name) is not None}
    rates = {
        name: getattr(flags, name) for name in ("attention_probs_dropout_prob", "hidden_dropout_prob") if getattr(flags, name) is not None
    }
    if snapshot is None:
        sizes = dict(MODEL_SIZE_DEFAULTS, **given)
        hidden = sizes["num_attention_heads"] * sizes.pop("hidden_size_per_head")
        config = BertConfig(hidden_size=hidden, intermediate_size=4 * hidden, **sizes)
    else:
        config = snapshot.config(
            flags.hidden_size_per_head or MODEL_SIZE_DEFAULTS["hidden_size_per_head"],
            None if flags.hidden_size_per_head else flags.num_attention_heads,
        )
        for name, value in given.items():
            own = config.head_size if name == "hidden_size_per_head" else getattr(config, name)
            if own != value:
                raise UserError(f"--{name} {value} contradicts {snapshot.path}, whose own is {own}: leave the flag out")
    return dataclasses.replace(config, **rates, pooling=_resolve_pooling(flags, snapshot, config.pooling))


def _resolve_pooling(flags, snapshot, own):
    """The pooling of the trained model: `--pooling` where given, else `own`, the snapshot's (or cls).

    Raises:
        UserError: the snapshot's classifier has been trained on another.
    """
    given = None if flags.script == PREPROCESS else getattr(flags, "pooling", None)  # there it is that of the prototypes
    if given in (None, own):
        return own
    if snapshot is not None and set(CLASSIFIER) <= set(snapshot.sizes):
        raise UserError(f"--pooling {given} contradicts {snapshot.path}, whose classifier stands on {own}: leave the flag out")
    return given
