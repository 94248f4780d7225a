"""The model's variables by their documented names (modeling/bert/names.py): shapes, initial values, and values from a snapshot."""

import numpy as np

from modeling.bert import names
from modeling.bert.fused_parameters import fuse
from modeling.bert.names import (
    CLASSIFIER,
    DECODER_PREFIX,
    DOMAIN_HEAD,
    ENCODER_PREFIX,
    GENERATOR_PREFIX,
    PALM_SENTENCE_HEAD,
    POOLER_PREFIX,
    PRETRAINING_HEADS,
    SPAN_HEAD,
    TAG_HEAD,
    TRAINING_ONLY_PREFIX,
    WORD_EMBEDDINGS,
    layer_of,
    layer_prefix,
)
from modeling.bert.variant import BEFORE, PLAIN
from modeling.engine import parallel
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say
from ofrecord_util.on_demand import OnDemand
from ofrecord_util.seeds import initial_value_stream

# A model takes those that it needs
_HEADS = (*names.POOLING_HEADS, *CLASSIFIER, *DOMAIN_HEAD, *PRETRAINING_HEADS, *PALM_SENTENCE_HEAD, *TAG_HEAD, *SPAN_HEAD)
_MOST_PARTS = 128  # outputs of one split_like


def encoder_shapes(config):
    """dict of documented name -> shape of the embeddings, encoder layers and pooler; dense weights are [in, out]."""
    hidden, intermediate, variant = config.hidden_size, config.intermediate_size, config.variant
    shapes = {WORD_EMBEDDINGS: (config.vocab_size, hidden), names.TOKEN_TYPE_EMBEDDINGS: (config.type_vocab_size, hidden)}
    if variant.has_position_table:
        shapes[names.POSITION_EMBEDDINGS] = (config.max_position_embeddings, hidden)
    shapes.update(_norm_shapes(names.EMBEDDINGS_NORM, hidden) if variant.embeddings_norm else {})
    dense = {
        names.QUERY: (hidden, hidden),
        names.KEY: (hidden, hidden),
        names.VALUE: (hidden, hidden),
        names.ATTENTION_OUTPUT: (hidden, hidden),
        names.INTERMEDIATE: (hidden, intermediate),
        names.OUTPUT: (intermediate, hidden),
    }
    for layer in range(config.num_hidden_layers):
        prefix = layer_prefix(layer)
        for name, shape in dense.items():
            shapes[prefix + name + "-weight"] = shape
            shapes[prefix + name + "-bias"] = shape[1:]
        for name in (names.ATTENTION_NORM, names.OUTPUT_NORM):
            shapes.update(_norm_shapes(prefix + name, hidden))
        if variant.relative_distances:
            tables = (names.RELATIVE_KEYS, names.RELATIVE_VALUES) if variant.relative_values else (names.RELATIVE_KEYS,)
            shapes.update({prefix + table: (2 * variant.relative_distances[layer] + 1, config.head_size) for table in tables})
    shapes.update(_norm_shapes(names.ENCODER_NORM, hidden) if variant.layer_norms == BEFORE else {})
    shapes[names.POOLER + "-weight"] = (hidden, hidden)
    shapes[names.POOLER + "-bias"] = (hidden,)
    shapes.update(_pooling_head_shapes(config))
    return shapes


def _pooling_head_shapes(config):
    """dict of name -> shape of the attention heads that pool the last layer."""
    size = config.variant.pooling_head_size
    used = names.POOLING_HEADS[: 4 * config.pooling_heads]
    return {name: (config.hidden_size, size) if name.endswith("weight") else (size,) for name in used}


def _norm_shapes(name, hidden):
    return {f"{name}-gamma": (hidden,), f"{name}-beta": (hidden,)}


def classifier_shapes(config, num_labels):
    """dict of name -> shape of the label classifier."""
    return {CLASSIFIER[0]: (num_labels, config.pooled_size), CLASSIFIER[1]: (num_labels,)}


def dense_head_shapes(config, head, outputs):
    """dict of name -> shape of a dense layer on each token: `names.TAG_HEAD` or `names.SPAN_HEAD`."""
    return {head[0]: (outputs, config.hidden_size), head[1]: (outputs,)}


def token_head_shapes(config):
    """dict of name -> shape of the head of masked language modelling, without its output weights, the word embeddings."""
    hidden = config.hidden_size
    if config.variant.token_head == PLAIN:
        return {names.TOKEN_BIAS: (config.vocab_size,)}
    return dict(zip(names.TOKEN_HEAD, ((hidden, hidden), (hidden,), (hidden,), (hidden,), (config.vocab_size,))))


def sentence_head_shapes(config, num_classes):
    """dict of name -> shape of the head of sentence pairs."""
    return {names.SENTENCE_HEAD[0]: (num_classes, config.hidden_size), names.SENTENCE_HEAD[1]: (num_classes,)}


def replaced_head_shapes(config):
    """dict of name -> shape of the head of replaced tokens."""
    hidden = config.hidden_size
    return dict(zip(names.REPLACED_HEAD, ((hidden, hidden), (hidden,), (hidden, 1), (1,))))


def domain_head_shapes(config, num_domains):
    """dict of name -> shape of the corrupted-domain classifier: E_dom, W_dom, b_dom."""
    wide = (num_domains, config.hidden_size)
    return {DOMAIN_HEAD[0]: wide, DOMAIN_HEAD[1]: wide, DOMAIN_HEAD[2]: (num_domains,)}


def representation_shapes(config, num_domains, wanted=True):
    """dict of name -> shape of the part of the domain head that r needs, E_dom; empty if not `wanted`."""
    return {DOMAIN_HEAD[0]: (num_domains, config.hidden_size)} if wanted else {}


def initial_value(name, shape, seed, initializer_range=0.02, replaced=b""):
    """The initial value of a variable that is not read from a snapshot: BERT's truncated normal, ones for gamma, zeros for beta and biases.

    It depends only on seed and name, not on other variables.

    Args:
        name: documented name.
        shape: tuple.
        seed: of the run.
        initializer_range: standard deviation of the normal distribution, which is truncated at two standard deviations.
        replaced: bytes of the value of a snapshot that is not used, if there is one. Without it, a new classifier would begin with the
            same numbers as that of the snapshot did, whose encoder was trained to fit them.
    Returns:
        float32 array.
    """
    if name.endswith("gamma"):
        return np.ones(shape, np.float32)
    if name.endswith(("beta", "bias")):
        return np.zeros(shape, np.float32)
    generator = initial_value_stream(seed, name, replaced)
    values = generator.standard_normal(shape)
    beyond = np.abs(values) > 2
    while beyond.any():
        values[beyond] = generator.standard_normal(int(beyond.sum()))
        beyond = np.abs(values) > 2
    return (values * initializer_range).astype(np.float32)


class Variables(flow.nn.Module):
    """The variables of one model, shared by all its static graphs.

    Inside a global function `get(name)` and `fused(name, …)` return the graph's tensors.

    Args:
        values: dict of documented name -> float32 array. An `OnDemand` needs memory for the arrays of one parameter only.
        device: "cpu" or "cuda".
        active_ids: the rows of the word embeddings that the graphs hold (modeling/bert/vocabulary.py); None for all.
        frozen: names of the variables that are not trained. They get no gradient and no weight decay.
        shapes: dict of name -> shape of the arrays; None to read it from them.
    Attributes:
        names: of the variables that a snapshot stores.
    """

    def __init__(self, values, device="cpu", active_ids=None, frozen=(), shapes=None):
        super().__init__()
        self.names = tuple(name for name in values if not name.startswith(TRAINING_ONLY_PREFIX))
        self._active_ids, self._device = active_ids, device
        self._all_words = values[WORD_EMBEDDINGS] if active_ids is not None else None
        self._shapes = {name: value.shape for name, value in values.items()} if shapes is None else dict(shapes)
        words = {}
        if active_ids is not None:
            words = {WORD_EMBEDDINGS: self._rows_in_use(self._all_words)}
            self._shapes[WORD_EMBEDDINGS] = words[WORD_EMBEDDINGS].shape
        self._frozen = frozenset(frozen)
        self._parameter_parts = fuse(self._shapes, self._frozen)
        self._places = dict(self._find_places())  # documented name -> (parameter's name, first column, columns)
        for parameter in self._parameter_parts:
            parts = {name: words[name] if name in words else values[name] for name in self._variables_in(parameter)}
            tensor = parallel.replicate(self._side_by_side(parameter, parts), device)
            trained = self._variables_in(parameter)[0] not in self._frozen
            self.register_parameter(parameter, flow.nn.Parameter(tensor, requires_grad=trained))

    def _rows_in_use(self, words):
        highest = int(self._active_ids.max(initial=0))
        if highest >= len(words):
            raise UserError(
                f"a token has the id {highest}, but the model has {len(words)} word embeddings: give the model's own --vocab_file"
            )
        return words[self._active_ids]

    def _variables_in(self, parameter):
        """Documented names, in the order of their columns."""
        return [name for part in self._parameter_parts[parameter] for name in part]

    def _find_places(self):
        for parameter in self._parameter_parts:
            column = 0
            for name in self._variables_in(parameter):
                yield name, (parameter, column, self._shapes[name][-1])
                column += self._shapes[name][-1]

    def _alone(self, parameter):
        return self._parameter_parts[parameter] == ((parameter,),)

    def _side_by_side(self, parameter, values):
        """The array of a parameter: a single variable unchanged, fused matrices as [in, sum of out], fused vectors as [1, sum]."""
        if self._alone(parameter):
            return np.ascontiguousarray(values[parameter], np.float32)
        columns = [values[name].reshape(-1, self._shapes[name][-1]) for name in self._variables_in(parameter)]
        return np.concatenate(columns, axis=1).astype(np.float32, copy=False)

    def get(self, name):
        """The variable `name` (documented name) as a tensor of its documented shape."""
        return self._of_parameter(name, getattr(self, self._places[name][0]))

    def _of_parameter(self, name, whole):
        """Cuts the variable `name` out of its parameter, a tensor or an array."""
        parameter, start, count = self._places[name]
        return whole if self._alone(parameter) else whole[:, start : start + count].reshape(*self._shapes[name])

    def fused(self, *names):
        """Several variables as one tensor: matrices [in, out] as [in, sum of out], vectors [N] as [1, sum of N].

        A graph needs no operation for it if the variables are the only part of their parameter, and one operation in total for a
        parameter of several parts.
        """
        parameter = self._places[names[0]][0]
        parts = self._parameter_parts[parameter]
        if names not in parts or self._alone(parameter):
            rows = [self.get(name) for name in names]
            rows = [row.reshape(1, -1) if len(row.shape) == 1 else row for row in rows]
            return rows[0] if len(rows) == 1 else flow.cat(rows, dim=1)
        whole = getattr(self, parameter)
        if len(parts) == 1:
            return whole
        widths = [sum(self._shapes[name][-1] for name in part) for part in parts]
        return memoize("parts", lambda: self._cut(whole, widths), of=whole)[parts.index(names)]

    def _cut(self, row, widths):
        """[1, sum of widths] -> one row per width. The forward and the backward pass take one operation each, for more than 15 layers a few
        more."""
        if len(widths) > _MOST_PARTS:
            groups = [widths[start : start + _MOST_PARTS] for start in range(0, len(widths), _MOST_PARTS)]
            cut = self._cut(row, [sum(group) for group in groups])
            return [part for group_row, group in zip(cut, groups) for part in self._cut(group_row, group)]
        likes = {width: parallel.constant((1, width), 0.0, self._device) for width in widths}
        return flow._C.split_like(row, [likes[width] for width in widths], 1)

    def arrays(self, decay=1.0):
        """`OnDemand` of name -> float32 NumPy array, as a snapshot stores them, with all rows of the word embeddings. An array may share
        the memory of its variable.

        Args:
            decay: the factor that weight decay has applied to the word embeddings that the graphs do not hold.
        """

        def array(name):
            value = self._of_parameter(name, parallel.to_numpy(getattr(self, self._places[name][0])))
            if self._active_ids is None or name != WORD_EMBEDDINGS:
                return value
            words = self._all_words * np.float32(1.0 if WORD_EMBEDDINGS in self._frozen else decay)
            words[self._active_ids] = value
            return words

        return OnDemand(self.names, array)

    def load(self, snapshot):
        """Reads all variables from a `Snapshot`. Compiled graphs use the new values."""
        for parameter in self._parameter_parts:
            names = self._variables_in(parameter)
            if set(names) <= set(self.names):  # no snapshot stores the variables of a loss
                self.assign(parameter, self._side_by_side(parameter, {name: self._read(snapshot, name) for name in names}))

    def _read(self, snapshot, name):
        """The array of a variable in a snapshot; of the word embeddings, the rows in use."""
        if self._active_ids is None or name != WORD_EMBEDDINGS:
            return read_finite(snapshot, name, self._shapes[name])
        self._all_words = read_finite(snapshot, name, self._all_words.shape)
        return self._rows_in_use(self._all_words)

    def put(self, name, value):
        """Sets one variable (documented name) to the values of an array. Compiled graphs use the new values."""
        parameter, start, count = self._places[name]
        if self._alone(parameter):
            return self.assign(parameter, np.ascontiguousarray(value, np.float32))
        whole = np.array(parallel.to_numpy(getattr(self, parameter)))
        whole[:, start : start + count] = np.reshape(value, (-1, count))
        return self.assign(parameter, whole)

    def assign(self, parameter, value):
        """Sets a parameter (see `trained`) to the values of an array. Compiled graphs use the new values."""
        with flow.no_grad():
            getattr(self, parameter).copy_(parallel.replicate(value, self._device))

    def trained(self):
        """dict of parameter's name -> tensor of the parameters that are trained, including those of a loss.

        A parameter holds one or more variables (modeling/bert/fused_parameters.py).
        """
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def columns(self):
        """dict of trained parameter's name -> list of (documented name, slice of the parameter's last dimension)."""
        places = {name: [] for name in self.trained()}
        for name, (parameter, start, count) in self._places.items():
            if parameter in places:
                places[parameter].append((name, slice(start, start + count)))
        return places

    def in_memory(self):
        """The number of scalars that this object holds: its parameters, and the word embeddings that the graphs do not hold."""
        held = sum(parameter.numel() for parameter in self.parameters())
        return held if self._all_words is None else held + self._all_words.size

    def count(self, frozen=None):
        """The number of scalars in the model: all (None), only frozen ones (True), or only trained ones (False)."""
        sizes = {name: int(np.prod(self._shapes[name])) for name in self.names if frozen is None or (name in self._frozen) == frozen}
        if self._active_ids is not None and WORD_EMBEDDINGS in sizes:
            sizes[WORD_EMBEDDINGS] = self._all_words.size
        return sum(sizes.values())


def read_finite(snapshot, name, shape):
    """The variable `name` of a `Snapshot`, float32 array of `shape`.

    Raises:
        UserError: a size does not fit, or a value is not finite. With such weights every result is NaN.
    """
    value = snapshot.read(name, shape)
    # a sum is finite only if all values are, unless it overflows; it needs no array of the same size
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(value.sum(dtype=np.float64))
    if not finite:
        bad = int(np.flatnonzero(~np.isfinite(value.reshape(-1)))[0])
        raise UserError(
            f"{snapshot.path}: the weights are not finite: variable {name} has the value {value.reshape(-1)[bad]} at position {bad}; the "
            "snapshot is damaged, give another one"
        )
    return value


def load_values(shapes, snapshot, seed, initializer_range=0.02, restart=(), log=say):
    """The values of a model's variables from a snapshot. Each is read when it is accessed.

    All variables of encoder and decoder except the pooler must be there. Missing heads are initialised; `log` is called with their names.

    Args:
        shapes: dict of name -> shape that the model needs.
        snapshot: a `Snapshot`, or None to initialise everything.
        seed: of the initial values.
        restart: names to initialise even if the snapshot has them (a classifier for other labels).
        log: called with one line about variables that were initialised, and one about variables of the snapshot that were not used.
    Returns:
        `OnDemand` of name -> float32 array, in the order of `shapes`. An access raises a UserError if the size does not fit, or a value
        is not finite.
    Raises:
        UserError: variables of the encoder are missing or unknown (lists all of them).
    """

    present = set() if snapshot is None else set(snapshot.sizes)

    def initial(name):
        replaced = snapshot.read(name, snapshot.shapes.get(name, (snapshot.sizes[name],))).tobytes() if name in present else b""
        return initial_value(name, shapes[name], seed, initializer_range, replaced)

    if snapshot is None:
        return OnDemand(shapes, initial)
    needed = [name for name in shapes if name.startswith((ENCODER_PREFIX, DECODER_PREFIX)) and not name.startswith(POOLER_PREFIX)]
    missing = [name for name in needed if name not in present]
    unknown = sorted(n for n in present if n not in shapes and n not in _HEADS)
    if missing or unknown:
        parts = (["missing " + ", ".join(missing)] if missing else []) + (["unknown " + ", ".join(unknown)] if unknown else [])
        raise UserError(
            "{} does not fit the model ({} encoder layers): {}".format(
                snapshot.path, len({layer_of(name) for name in shapes} - {None}), "; ".join(parts)
            )
        )
    started = [name for name in shapes if name not in present or name in restart]
    told = [name for name in started if not name.startswith(GENERATOR_PREFIX)]  # a generator is never in a snapshot
    if told:
        log("initialised, not in the snapshot or for other labels or domains: " + ", ".join(told))
    left = sorted(n for n in present if n not in shapes)
    if left:
        log("not taken from the snapshot: " + ", ".join(left))
    return OnDemand(shapes, lambda name: initial(name) if name in started else read_finite(snapshot, name, shapes[name]))
