"""What the scripts with a head on each token share: the training in epochs, the predictions of an evaluation, and the checks of a
snapshot's head."""

from modeling.bert.dropout import DropoutPlan
from modeling.checkpoints.snapshot import stored_task
from modeling.engine import parallel
from modeling.run.evaluation import TEXT, predict_batches
from modeling.run.held_out import measured_parts, other_domains, split_of
from modeling.run.training import Training
from ofrecord_util.errors import UserError
from ofrecord_util.text_warnings import missing_names


class TokenTraining(Training):
    """`Training` of a head on each token. The log does not compare the loss with that of guessing.

    Args:
        context: `RunContext`.
        variables: the trained `Variables`.
        samples: `Samples` of the training split, one per row.
        drops_tokens: whether there is dropout between the encoder and the head.
    """

    def __init__(self, context, variables, samples, drops_tokens):
        super().__init__(context, variables, samples)
        self.mean_weight = None
        parts = self.layout.parts if context.engine.sums_gradients else 1
        plan = context.config, context.flags.seed, context.engine.device, parts, self.smoothness.passes
        self.dropout = DropoutPlan(*plan, of_tokens=True, before_head=drops_tokens)


class TokenEvaluator:
    """Runs a predict function that returns logits for each token, for the measures of a split.

    Args:
        context: `RunContext`.
        job: a predict `GlobalFunction` that returns logits [B, S, C].
        splits: dict of split -> (what the split has besides samples, with a `select` of rows; `Samples`), or None for a split to leave out.
        batch_sizes: dict of split -> rows per batch from the flags.
        train: training `Samples` of a run that evaluates dev periodically; None if each split is measured once.
    Attributes:
        splits: dict of split -> such a pair, with names such as "dev_held_out" for the rows of held-out domains.
    Raises:
        UserError: dev is to select a snapshot, and has no row of a domain that is not held out.
    """

    def __init__(self, context, job, splits, batch_sizes, train=None):
        self._context, self._job, self._found = context, job, {}
        self.splits = measured_parts(context, splits, train is not None)
        self._batches = {
            name: context.bucketing.evaluation(samples, batch_sizes[split_of(name)], train if name == "dev" else None, all_tokens=True)
            for name, (_, samples) in self.splits.items()
        }

    def _logits(self, split):
        """Yields (row numbers [N], logits float32 [N, S, C]) of each batch of a split."""
        for rows, logits in predict_batches(self._job, self.splits[split][1], self._batches[split], TEXT):
            yield rows, parallel.to_numpy(logits)[: len(rows)]


def check_head(context, head, what):
    """Raises a UserError if a run without training has no head, or one for other labels.

    Args:
        context: `RunContext`.
        head: names of its variables.
        what: the head for the message.
    """
    snapshot, task = context.snapshot, context.task
    if snapshot is None:
        raise UserError("--do_train false: --model_load_dir is needed (the snapshot to evaluate)")
    if not set(head) <= set(snapshot.sizes):
        raise UserError(f"--do_train false: {snapshot.path} has no {what} ({head[0]})")
    stored = stored_task(snapshot)
    if stored is None or stored.labels != task.labels:
        found = ",".join(stored.labels) if stored else "unknown ones"
        raise UserError(f"--do_train false: {snapshot.path} was trained for the labels {found}: give them with --label_list")


def read_split(context, split, optional):
    """(`Records`, text) of a split that the flags allow. The text of "train" may be None: records are enough to train. Dev and test need
    their text, whose words or answers are measured and written. Both are None if there is no text and the split is optional.

    Args:
        context: `RunContext`.
        split: "train", "dev" or "test".
        optional: whether the text may be missing.
    Raises:
        UserError: text or records are missing, invalid or stale.
    """
    splits, flag = context.splits, "eval" if split == "test" else split
    if optional and not splits.has_text(split):
        context.log(f"no {split} split: there is no {split}{splits.text_ends[0]}")
        return None, None
    needed = split != "train"
    if needed:
        splits.text(split, needed=True)  # before its records are written
    records = splits.records(split, flag)
    text = splits.text(split, needed) if needed or splits.has_text(split) else None
    return records, text and text.first(getattr(context.flags, f"{flag}_example_num"))


def trained_part(context, split, found):
    """What --held_out_domains leaves of a split: all of it, unless it is the training split.

    Args:
        context: `RunContext`.
        split: "train", "dev" or "test".
        found: what the run reads of the split, with `records` and a `select` of rows.
    """
    if split != "train" or not context.splits.held_out:
        return found
    return found.select(context.splits.trained_rows(found.records.domain))


def missing_domains(context, split, place, counts, unit):
    """The warning about domains that a split does not have, see `missing_names`. Held-out domains are no fault of the training split.

    Args:
        context: `RunContext`.
        split: "train", "dev" or "test".
        place: the file.
        counts: int [K], rows by domain.
        unit: what a row is.
    """
    task, learns = context.task, split == "train"
    domains = other_domains(context.splits.held_out if learns else (), task)
    return missing_names(place, "domain", [task.domains[domain] for domain in domains], counts[domains], learns, unit=unit)


def note_split(context, name, facts, found):
    """Stores what flags.json says of a split, and what must be the same when the run continues.

    Args:
        context: `RunContext`.
        name: of the split.
        facts: dict for flags.json, besides those that all splits have.
        found: what the run reads of the split, with `records` and `digest`.
    """
    stored = context.splits.facts[name]
    context.splits.facts[name] = {**facts, **{key: stored[key] for key in ("text_file", "text_digest")}}
    context.splits.digests["{} data's digest".format("training" if name == "train" else name)] = found.digest
