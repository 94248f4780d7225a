"""The model sizes of a run, from the snapshot or the flags. Flags that contradict the snapshot are an error."""

import dataclasses

from modeling.bert.config import MEAN, BertConfig
from modeling.bert.names import CLASSIFIER
from modeling.cli.flags import METRIC_LEARNING, MODEL_SIZE_DEFAULTS, PREPROCESS, PRETRAIN_PAIRS
from ofrecord_util.errors import UserError


def resolve_config(flags, snapshot, kind=BertConfig, further=()):
    """The `BertConfig` of a run: the sizes of the snapshot, or those of the flags if there is no snapshot.

    Args:
        kind: the class of the config.
        further: names of flags that are sizes of this class alone.
    Raises:
        UserError: a flag contradicts the snapshot.
    """
    given = {name: getattr(flags, name) for name in (*MODEL_SIZE_DEFAULTS, *further) if getattr(flags, name) is not None}
    rates = {
        name: getattr(flags, name) for name in ("attention_probs_dropout_prob", "hidden_dropout_prob") if getattr(flags, name) is not None
    }
    if snapshot is None:
        sizes = dict(MODEL_SIZE_DEFAULTS, **given)
        hidden = sizes["num_attention_heads"] * sizes.pop("hidden_size_per_head")
        config = kind(hidden_size=hidden, intermediate_size=4 * hidden, **sizes)
    else:
        config = snapshot.config(
            flags.hidden_size_per_head or MODEL_SIZE_DEFAULTS["hidden_size_per_head"],
            None if flags.hidden_size_per_head else flags.num_attention_heads,
            kind,
        )
        for name, value in given.items():
            own = config.head_size if name == "hidden_size_per_head" else getattr(config, name)
            if own != value:
                raise UserError(f"--{name} {value} contradicts {snapshot.path}, which has {own}: leave the flag out")
    if "hidden_dropout_prob" in rates and config.pooler_input_dropout_prob > 0:
        rates["pooler_input_dropout_prob"] = rates["hidden_dropout_prob"]
    return dataclasses.replace(config, **rates, pooling=_resolve_pooling(flags, snapshot, config.pooling))


def _has_classifier(snapshot):
    return snapshot is not None and set(CLASSIFIER) <= set(snapshot.sizes)


def _resolve_pooling(flags, snapshot, own):
    """The pooling of the trained model: `--pooling`, or by default `own`, the snapshot's pooling (or cls). Metric learning and the
    training on pairs of a corpus take the mean by default where the snapshot has no classifier.

    Raises:
        UserError: the snapshot's classifier was trained with another pooling.
    """
    given = None if flags.script == PREPROCESS else getattr(flags, "pooling", None)  # in preprocess.py the flag applies to the prototypes
    if given is None and flags.script in (METRIC_LEARNING, PRETRAIN_PAIRS) and not _has_classifier(snapshot):
        return MEAN
    if given in (None, own):
        return own
    if _has_classifier(snapshot):
        raise UserError(f"--pooling {given} contradicts {snapshot.path}, whose classifier was trained with {own}: leave the flag out")
    return given
