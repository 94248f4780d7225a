"""The labels of a sequence classifier: read from config.json of Hugging Face, and named for another format."""

from ofrecord_util.errors import UserError
from ofrecord_util.label_kinds import CLASSIFICATION, LABEL_KINDS, REGRESSION
from ofrecord_util.tasks import Task


def read_labels(values, checkpoint, longest=None):
    """The task of a sequence classifier of Hugging Face, so that its labels have their names.

    Args:
        values: parsed config.json.
        checkpoint: `Checkpoint` with a classifier, or with a head that tags words.
        longest: maximum length of a text in tokens, or None.
    Returns:
        (dict for task.json, or None if the classifier cannot be used as it is; then a note for the user, else None).
    """
    count, named = checkpoint.num_labels or checkpoint.num_tags, values.get("id2label")
    problem = values.get("problem_type")
    # transformers takes a classifier of one output for a regression unless config.json says otherwise
    kinds = {kind.problem_type: kind for kind in LABEL_KINDS.values()}
    kind = kinds.get(problem) if problem is not None else LABEL_KINDS[REGRESSION if count == 1 else CLASSIFICATION]
    if kind is None or not kind.limits[0] <= count <= kind.limits[1]:
        return None, f"the classifier has {count} outputs for the problem_type {problem!r:.60}, which the tools here cannot predict"
    if named is None:
        named = {str(number): f"LABEL_{number}" for number in range(count)}  # as transformers names them
    if not isinstance(named, dict) or sorted(named) != sorted(map(str, range(count))):
        found = len(named) if isinstance(named, dict) else repr(named)[:40]
        return None, f"the names of the labels are dropped: config.json has {found} in id2label, the classifier has {count} labels"
    labels = [str(named[key]) for key in sorted(named, key=int)]
    name = "converted"
    try:
        task = Task(name, (name,), tuple(labels), False, kind.task_type).to_dict()
    except UserError as error:
        return None, f"the names of the labels are dropped: {error}"
    if checkpoint.do_lower_case is not None:
        task["do_lower_case"] = checkpoint.do_lower_case
    if longest is not None and 5 <= longest <= checkpoint.config.max_position_embeddings:
        task["seq_length"] = longest
    return task, None


def label_names(checkpoint):
    """Returns the names of the labels in the order of their ids, and a list of notes for the user.

    Raises:
        UserError: the task names another number of labels than the classifier has.
    """
    count = checkpoint.num_labels or checkpoint.num_tags
    if checkpoint.task is None:
        names = [f"LABEL_{i}" for i in range(count)]
        return names, [f"there is no task.json, so the labels are called {names[0]} to {names[-1]}"]
    names = list(Task.from_dict(checkpoint.task).labels)
    if len(names) != count:
        raise UserError(f"task.json names {len(names)} labels ({', '.join(names)}), but the classifier has {count}")
    return names, []
