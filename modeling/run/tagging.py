"""Tagged words in a run: the sentences of a split, and the tags that a model predicts, measured by entities."""

from typing import NamedTuple

import numpy as np

from modeling.engine import parallel
from modeling.run.entity_measures import Counts, count_entities, entity_measures
from modeling.run.evaluation import Evaluation
from modeling.run.measures import cross_entropies, log_softmax
from modeling.run.split_files import tagged_path
from modeling.run.task_outputs import check_logits
from modeling.run.token_training import TokenEvaluator, missing_domains, note_split, read_split, trained_part
from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing
from ofrecord_util.summary import with_unknown
from ofrecord_util.tagged_text import OUTSIDE
from ofrecord_util.tagging import TaggedRecords, words_of
from ofrecord_util.text_warnings import ONE_TAG_ONLY, missing_names


def load_tagged(context, split, optional=False):
    """The `TaggedRecords` of a split.

    Args:
        context: `RunContext` with a `TaggedFolder` and a `TagForm`.
        split: "train", "dev" or "test".
        optional: whether None is returned if there is no file.
    Raises:
        UserError: text or records are missing, invalid or stale, or do not fit the vocabulary.
    """
    task, tokenizer = context.task, context.tokenizer
    records, text = read_split(context, split, optional)
    if records is None:
        return None
    found = trained_part(context, split, TaggedRecords(records, text))
    records, text = found.records, found.text
    counts, tags = np.zeros((task.num_domains, task.num_labels), int), found.tags_of_words
    np.add.at(counts, (np.repeat(records.domain, list(map(len, tags))), np.concatenate(tags).astype(int)), 1)
    by_domain = {name: dict(zip(task.labels, row.tolist())) for name, row in zip(task.domains, counts)}
    cut = records.manifest.get("truncated")
    more = {"sentences": len(records), "words_without_token": cut}
    note_split(context, split, {"rows": int(counts.sum()), "by_domain": by_domain, **more}, found)
    unknown, total = tokenizer.count_unknown(records.input_ids, records.input_mask)
    named = [task.labels[tag] for tag in np.flatnonzero(counts.sum(axis=0))]
    domains = ", ".join(f"{name} {np.count_nonzero(records.domain == place)}" for place, name in enumerate(task.domains))
    about = f"{split}: {len(records)} sentences of {(text or records).path} ({domains}), {counts.sum()} words, tags {', '.join(named)}"
    without = f"{cut} words of the split have no token, most of them cut at --seq_length {records.seq_length}"
    context.log(with_unknown([about, without], unknown, total))
    place, learns = (text or records).path, split == "train"
    by_name = np.bincount(records.domain, minlength=task.num_domains), counts.sum(axis=0)
    for line in (
        missing_names(place, "tag", task.labels, by_name[1], learns, ONE_TAG_ONLY[learns], "word"),
        missing_domains(context, split, place, by_name[0], "sentence"),
    ):
        if line:
            context.log(f"warning: {line}")
    return found


class Tagged(NamedTuple):
    """What a model predicts for the words of a split (W words of all sentences that have a token)."""

    rows: np.ndarray  # int64 [W], sentences
    words: np.ndarray  # int64 [W], numbers of the words within their sentence
    logits: np.ndarray  # float32 [W, C]

    def tags(self, sentences, labels):
        """Names of the tags of each sentence: lists of str. A word without a token has the tag O.

        Args:
            sentences: lists of words.
            labels: names of the C tags.
        """
        found = [[OUTSIDE] * len(sentence) for sentence in sentences]
        for row, word, tag in zip(self.rows.tolist(), self.words.tolist(), self.logits.argmax(axis=1).tolist()):
            found[row][word] = labels[tag]
        return found


def predict_words(outputs, words):
    """The `Tagged` of a split.

    Args:
        outputs: iterable of (int64 [b], rows of the split; float [B, L, C], logits of their tokens, b <= B).
        words: int32 [N, S], see `ofrecord_util.tagging.Pieces`.
    """
    parts = []
    for rows, logits in outputs:
        own = words[rows, : logits.shape[1]]
        places = words_of(own)
        parts.append(Tagged(rows[places[0]], own[places], logits[places]))
    return Tagged(*map(np.concatenate, zip(*parts)))


class TagEvaluator(TokenEvaluator):
    """Measures the entities of a split, and the tags of its words. In `splits`, a split has its `TaggedRecords` besides the samples."""

    def _predict(self, split):
        self._found[split] = found = predict_words(self._logits(split), self.splits[split][0].words)
        return found

    def __call__(self, split="dev"):
        """The `Evaluation` of a split. Its rows are words: `total` is their number, with those that have no token."""
        tagged, found, task = self.splits[split][0], self._predict(split), self._context.task
        text = tagged.text
        if not len(found.rows):
            raise UserError(f"{text.path}: no word has a token of the vocabulary; give the model's own --vocab_file, or other words")
        starts = np.cumsum([0, *map(len, text.tags)])
        losses = cross_entropies(log_softmax(found.logits), np.concatenate(text.tags)[starts[found.rows] + found.words])
        true = [[task.labels[tag] for tag in own] for own in text.tags]
        predicted = found.tags(text.words, task.labels)

        def measures(here):
            rows = np.flatnonzero(here).tolist()
            hits = [one == other for row in rows for one, other in zip(true[row], predicted[row])]
            counts = count_entities((true[row] for row in rows), (predicted[row] for row in rows))
            own = losses[here[found.rows]]
            mean = float(own.mean()) if len(own) else 0.0
            return _values(sum(hits), len(hits), mean, counts)

        by_domain = {}
        for domain, name in enumerate(task.domains):
            if (text.domain == domain).any():
                by_domain[name] = measures(text.domain == domain)
        whole = measures(np.ones(len(text), bool))
        more = {name: value for name, value in whole.items() if name not in ("accuracy", "correct", "total", "cross_entropy")}
        return Evaluation(whole["correct"], whole["total"], whole["cross_entropy"], by_domain, more)

    def write(self, trained):
        """Writes `tagged_SPLIT.tsv` of each split into the run's folder: word, domain, true and predicted tag, and a blank line after each
        sentence.

        Args:
            trained: whether the variables have changed since dev was evaluated.
        """
        folder, task = self._context.folder.path, self._context.task
        for split, (tagged, _) in self.splits.items():
            found = self._predict(split) if split not in self._found or (trained and split == "dev") else self._found[split]
            check_logits(found.logits)
            if parallel.is_main():
                write_tags(tagged_path(folder, split), tagged.text, found.tags(tagged.text.words, task.labels), task)


def _values(correct, total, cross_entropy, counts: Counts):
    shares = {"accuracy": correct / total, "correct": correct, "total": total, "cross_entropy": cross_entropy}
    return {**shares, **entity_measures(counts)}


def write_tags(path, text, predicted, task):
    """Writes the tags of a split.

    Args:
        path: of the file. It appears only when it is complete.
        text: `TaggedSplit`.
        predicted: names of the tags of each sentence, lists of str.
        task: `Task`.
    """
    lines = []
    for words, domain, tags, own in zip(text.words, text.domain.tolist(), text.tags, predicted):
        lines += ["\t".join(cells) for cells in zip(words, [task.domains[domain]] * len(words), (task.labels[tag] for tag in tags), own)]
        lines.append("")
    try:
        with replacing(path) as file:
            file.write(("\n".join(lines) + "\n").encode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
