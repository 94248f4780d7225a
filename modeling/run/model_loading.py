"""Loads a run's variables from the snapshot. Heads for other labels or domains get initial values."""

from modeling.bert.names import CLASSIFIER, DOMAIN_HEAD, POOLER_PREFIX, TAG_HEAD
from modeling.bert.variables import Variables, encoder_shapes, load_values
from modeling.bert.vocabulary import ActiveVocabulary
from modeling.checkpoints.snapshot import TASK_FILE, stored_task
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import for_shell
from ofrecord_util.on_demand import OnDemand


def heads_to_restart(stored, task):
    """Names of the variables that start from initial values although the snapshot has them: the classifier and the tag head if the labels
    or the type of the task differ from the snapshot's, and the domain head if the domains differ.

    Args:
        stored: `Task` of the snapshot, or None if it has no task.
        task: `Task` of the run.
    """
    names = ()
    if stored is None or not _same_labels(stored, task):
        names += (*CLASSIFIER, *TAG_HEAD)
    if stored is None or stored.domains != task.domains:
        names += DOMAIN_HEAD
    return names


def _same_labels(stored, task):
    """Whether a classifier of the one `Task` is one of the other."""
    return (stored.labels, stored.task_type) == (task.labels, task.task_type)


def shapes_without_pooler(config, snapshot):
    """dict of name -> shape of the encoder for a head that reads tokens. The pooler is not trained, so it is there only if the snapshot has
    it."""
    has_pooler = snapshot is not None and any(name.startswith(POOLER_PREFIX) for name in snapshot.sizes)
    return {name: shape for name, shape in encoder_shapes(config).items() if has_pooler or not name.startswith(POOLER_PREFIX)}


def check_classifier(context) -> None:
    """Raises a UserError if a run without training has no classifier for the task's labels."""
    snapshot, task = context.snapshot, context.task
    if snapshot is None:
        raise UserError("--do_train false: --model_load_dir is needed (the snapshot to evaluate)")
    stored = stored_task(snapshot)
    if stored is not None and stored.task_type != task.task_type:
        raise UserError(f"--do_train false: {snapshot.path} is of --task_type {stored.task_type}, this run of {task.task_type}")
    if stored is None or stored.labels != task.labels or not set(CLASSIFIER) <= set(snapshot.sizes):
        found = "was trained for the labels " + ",".join(stored.labels) if stored else f"has no {TASK_FILE}"
        if stored is not None and set(stored.labels) == set(task.labels):
            names = for_shell(",".join(stored.labels))
            raise UserError(f"--do_train false: {snapshot.path} has the labels of the text in another order: set --label_list {names}")
        raise UserError(f"--do_train false: {snapshot.path} {found}, so it has no classifier for the labels {','.join(task.labels)}")


def load_variables(context, shapes, snapshot, vocabulary=None, trainable=True, given=None, unused=()):
    """`Variables` from a snapshot.

    Args:
        context: `RunContext`.
        shapes: dict of documented name -> shape.
        snapshot: a `Snapshot`, or None for initial values.
        vocabulary: `ActiveVocabulary` with the word embeddings to hold, or None for all.
        trainable: False to freeze all variables (for a teacher). Otherwise the flags select the frozen variables. Variables that start
            from initial values are never frozen.
        given: dict of name -> array, values that do not come from the snapshot.
        unused: how the names of variables begin that no graph of the run uses. They are frozen.
    """
    given = given or {}
    restart = () if snapshot is None else heads_to_restart(stored_task(snapshot), context.task)
    wanted = {name: shape for name, shape in shapes.items() if name not in given}
    values = load_values(wanted, snapshot, context.flags.seed, context.config.initializer_range, restart, context.log)
    held = [name for name in shapes if context.freezing.holds(name) or name.startswith(tuple(unused))]
    frozen = [name for name in held if snapshot is not None and name in snapshot.sizes]
    ids = vocabulary and vocabulary.ids
    values = OnDemand(shapes, lambda name, stored=values: given[name] if name in given else stored[name])
    variables = Variables(values, context.engine.device, ids, frozen if trainable else tuple(shapes), shapes)
    context.log(f"{variables.count() / 1e6:.1f} million parameters")
    return variables


def load_model(context, shapes, *records):
    """Loads the run's `Variables` from its snapshot, and the `Samples` that match them.

    Args:
        context: `RunContext`.
        shapes: dict of documented name -> shape.
        records: `Records` (or None) of all splits that the graphs will read. The variables hold only the word embeddings of their pieces.
    Returns:
        the `Variables`, followed by the `Samples` (or None) of each split.
    """
    vocabulary = ActiveVocabulary(records)
    return (load_variables(context, shapes, context.snapshot, vocabulary), *map(vocabulary.samples, records))
