"""The model's variables by their documented names: what exists for which sizes, how each starts, how a snapshot fills them."""

import numpy as np

from modeling.bert import names
from modeling.bert.fused_parameters import fuse
from modeling.bert.names import (
    CLASSIFIER,
    DOMAIN_HEAD,
    ENCODER_PREFIX,
    POOLER_PREFIX,
    TRAINING_ONLY_PREFIX,
    WORD_EMBEDDINGS,
    layer_of,
    layer_prefix,
)
from modeling.engine import parallel
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow
from ofrecord_util.errors import UserError
from ofrecord_util.seeds import initial_value_stream


def encoder_shapes(config):
    """dict of documented name -> shape for the embeddings, encoder layers and pooler; dense weights are [in, out]."""
    hidden, intermediate = config.hidden_size, config.intermediate_size
    shapes = {
        WORD_EMBEDDINGS: (config.vocab_size, hidden),
        names.TOKEN_TYPE_EMBEDDINGS: (config.type_vocab_size, hidden),
        names.POSITION_EMBEDDINGS: (config.max_position_embeddings, hidden),
        names.EMBEDDINGS_NORM + "-gamma": (hidden,),
        names.EMBEDDINGS_NORM + "-beta": (hidden,),
    }
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
            shapes[prefix + name + "-gamma"] = (hidden,)
            shapes[prefix + name + "-beta"] = (hidden,)
    shapes[names.POOLER + "-weight"] = (hidden, hidden)
    shapes[names.POOLER + "-bias"] = (hidden,)
    return shapes


def classifier_shapes(config, num_labels):
    """dict of name -> shape of the classification head."""
    return {CLASSIFIER[0]: (num_labels, config.hidden_size), CLASSIFIER[1]: (num_labels,)}


def domain_head_shapes(config, num_domains):
    """dict of name -> shape of the corrupted-domain classifier: E_dom, W_dom, b_dom."""
    wide = (num_domains, config.hidden_size)
    return {DOMAIN_HEAD[0]: wide, DOMAIN_HEAD[1]: wide, DOMAIN_HEAD[2]: (num_domains,)}


def representation_shapes(config, num_domains, wanted=True):
    """dict of name -> shape of what the domain representation needs of the domain head: E_dom; empty where not wanted."""
    return {DOMAIN_HEAD[0]: (num_domains, config.hidden_size)} if wanted else {}


def initial_value(name, shape, seed, initializer_range=0.02):
    """How a variable starts when no snapshot gives it: BERT's truncated normal, ones for gamma, zeros for beta and
    biases.

    Drawn from (seed, name), so a variable's start depends on no other variable.
    """
    if name.endswith("gamma"):
        return np.ones(shape, np.float32)
    if name.endswith(("beta", "bias")):
        return np.zeros(shape, np.float32)
    generator = initial_value_stream(seed, name)
    values = generator.standard_normal(shape)
    beyond = np.abs(values) > 2
    while beyond.any():
        values[beyond] = generator.standard_normal(int(beyond.sum()))
        beyond = np.abs(values) > 2
    return (values * initializer_range).astype(np.float32)


class Variables(flow.nn.Module):
    """The variables of one model, shared by all its static graphs; `joined(name, …)` and `get(name)` inside a global function give the
    graph's tensors.

    Args:
        values: dict of documented name -> float32 array.
        device: "cpu" or "cuda".
        active_ids: rows of the word embeddings that the graphs hold (see modeling/bert/vocabulary.py); None for all.
        frozen: names of variables that are not trained: they get no gradient, and words that the graphs do not hold no decay.
    Attributes:
        names: of the model's variables, those that a snapshot holds.
    """

    def __init__(self, values, device="cpu", active_ids=None, frozen=()):
        super().__init__()
        self.names = tuple(name for name in values if not name.startswith(TRAINING_ONLY_PREFIX))
        self._active_ids, self._device = active_ids, device
        self._all_words = values[WORD_EMBEDDINGS] if active_ids is not None else None
        values = {name: self._rows_in_use(name, value) for name, value in values.items()}
        self._shapes = {name: value.shape for name, value in values.items()}
        self._frozen = frozenset(frozen)
        self._parameter_parts = fuse(self._shapes, self._frozen)
        self._places = dict(self._find_places())  # documented name -> (parameter's name, first column, columns)
        for parameter in self._parameter_parts:
            tensor = parallel.replicate(self._side_by_side(parameter, values), device)
            trained = self._variables_in(parameter)[0] not in self._frozen
            self.register_parameter(parameter, flow.nn.Parameter(tensor, requires_grad=trained))

    def _rows_in_use(self, name, value):
        return value if self._active_ids is None or name != WORD_EMBEDDINGS else value[self._active_ids]

    def _variables_in(self, parameter):
        """Documented names in the order of their columns."""
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
        """The array of a parameter from those of the variables: a variable alone as it is, matrices [in, sum of out], vectors [1, sum]."""
        if self._alone(parameter):
            return np.ascontiguousarray(values[parameter], np.float32)
        columns = [values[name].reshape(-1, self._shapes[name][-1]) for name in self._variables_in(parameter)]
        return np.concatenate(columns, axis=1).astype(np.float32, copy=False)

    def get(self, name):
        """The variable `name` (documented name) as a tensor."""
        return self._of_parameter(name, getattr(self, self._places[name][0]))

    def _of_parameter(self, name, whole):
        """What of its parameter, a tensor or an array, is the variable `name`."""
        parameter, start, count = self._places[name]
        return whole if self._alone(parameter) else whole[:, start : start + count].reshape(*self._shapes[name])

    def fused(self, *names):
        """Variables side by side: matrices [in, out] as [in, sum of out], vectors [N] as one row [1, sum of N]. No operation of a graph
        where they are a parameter's only part, and one for all of a parameter's parts."""
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
        """[1, sum of widths] -> a row for each width, by one operation, whose gradient is one too."""
        likes = {width: parallel.constant((1, width), 0.0, self._device) for width in widths}
        return flow._C.split_like(row, [likes[width] for width in widths], 1)

    def arrays(self, decay=1.0):
        """dict of name -> float32 NumPy array, as a snapshot stores them: all rows of the word embeddings.

        Args:
            decay: factor by which weight decay has shrunk the word embeddings that the graphs do not hold.
        """
        parameters = {name: parallel.to_numpy(value) for name, value in self.named_parameters()}
        arrays = {name: self._of_parameter(name, parameters[self._places[name][0]]) for name in self.names}
        if self._active_ids is not None:
            words = self._all_words * np.float32(1.0 if WORD_EMBEDDINGS in self._frozen else decay)
            words[self._active_ids] = arrays[WORD_EMBEDDINGS]
            arrays[WORD_EMBEDDINGS] = words
        return arrays

    def load(self, snapshot):
        """Takes every variable's value from a `Snapshot`; graphs that are compiled already see the new values."""
        values = {}
        for name in self.names:
            if self._active_ids is not None and name == WORD_EMBEDDINGS:
                self._all_words = snapshot.read(name, self._all_words.shape)
                values[name] = self._rows_in_use(name, self._all_words)
            else:
                values[name] = snapshot.read(name, self._shapes[name])
        for parameter in self._parameter_parts:
            if set(self._variables_in(parameter)) <= set(values):  # what serves a loss alone is in no snapshot
                self.assign(parameter, self._side_by_side(parameter, values))

    def assign(self, parameter, value):
        """Gives a parameter (see `trained`) the values of an array; graphs that are compiled already see them."""
        with flow.no_grad():
            getattr(self, parameter).copy_(parallel.replicate(value, self._device))

    def trained(self):
        """dict of parameter's name -> tensor, of those that are not frozen, those that serve a loss included; one holds one variable or
        several (modeling/bert/fused_parameters.py)."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def count(self, frozen=None):
        """Number of the model's parameters; of the frozen (True) or the trained ones (False) alone."""
        sizes = {name: int(np.prod(self._shapes[name])) for name in self.names if frozen is None or (name in self._frozen) == frozen}
        if self._active_ids is not None and WORD_EMBEDDINGS in sizes:
            sizes[WORD_EMBEDDINGS] = self._all_words.size
        return sum(sizes.values())


def load_values(shapes, snapshot, seed, initializer_range=0.02, restart=(), log=print):
    """Values for `shapes` from a snapshot; strict about the encoder, heads that it lacks are initialised and said so.

    Args:
        shapes: dict of name -> shape that the model needs.
        snapshot: a `Snapshot`, or None to initialise everything.
        seed: of the initial values.
        restart: names to initialise though the snapshot has them (a classifier for other labels).
        log: called with one line about what was initialised or left behind.
    Returns:
        dict of name -> float32 array, in the order of `shapes`.
    Raises:
        UserError: a missing or unknown encoder variable (all listed), or one whose size does not fit.
    """
    if snapshot is None:
        return {name: initial_value(name, shape, seed, initializer_range) for name, shape in shapes.items()}
    present = set(snapshot.sizes)
    missing = [n for n in shapes if n.startswith(ENCODER_PREFIX) and not n.startswith(POOLER_PREFIX) and n not in present]
    unknown = sorted(n for n in present if n not in shapes and n not in CLASSIFIER and n not in DOMAIN_HEAD)
    if missing or unknown:
        parts = (["missing " + ", ".join(missing)] if missing else []) + (["unknown " + ", ".join(unknown)] if unknown else [])
        raise UserError(
            "{} does not fit the model ({} encoder layers): {}".format(
                snapshot.path, len({layer_of(name) for name in shapes} - {None}), "; ".join(parts)
            )
        )
    values, started = {}, []
    for name, shape in shapes.items():
        if name in present and name not in restart:
            values[name] = snapshot.read(name, shape)
        else:
            values[name] = initial_value(name, shape, seed, initializer_range)
            started.append(name)
    if started:
        log("initialised, not in the snapshot or for other labels or domains: " + ", ".join(started))
    left = sorted(n for n in present if n not in shapes)
    if left:
        log("left behind in the snapshot: " + ", ".join(left))
    return values
