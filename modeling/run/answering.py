"""Answers in a run: the questions of a split, and the answers that a model finds, measured by exact match and F1."""

import json
from typing import NamedTuple

import numpy as np

from modeling.cli.choices import ANSWER_F1, EXACT_MATCH
from modeling.engine import parallel
from modeling.run.answer_measures import best_of, exact_match, f1
from modeling.run.evaluation import Evaluation
from modeling.run.measures import log_softmax
from modeling.run.split_files import answers_path, nbest_path
from modeling.run.task_outputs import check_logits
from modeling.run.token_training import TokenEvaluator, missing_domains, note_split, read_split, trained_part
from ofrecord_util.answer_windows import windows_of
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.files import replacing
from ofrecord_util.summary import with_unknown


def load_questions(context, split, optional=False):
    """The `Windows` of a split.

    Args:
        context: `RunContext` with a `QuestionFolder` and a `WindowForm`.
        split: "train", "dev" or "test".
        optional: whether None is returned if there is no file.
    Raises:
        UserError: text or records are missing, invalid or stale, have questions without answers although --no_answer is not set, or do not
            fit the vocabulary or the length.
    """
    task, tokenizer = context.task, context.tokenizer
    records, text = read_split(context, split, optional)
    if records is None:
        return None
    whole = windows_of(records, text)
    found = trained_part(context, split, whole)
    records, text = found.records, found.text
    without = found.without_answer
    if len(without) and not context.flags.no_answer:
        number = whole.question[records.idxs[found.question == without[0]][0]] + 1  # of the split, from which others may be left out
        name = f"{text.path}: question {text.ids[without[0]]!r:.60}" if text else f"{records.path}: question {number}"
        has, them = ("has", "it") if len(without) == 1 else (f"and {counted(len(without) - 1, 'other')} have", "them")
        raise UserError(f"{name} {has} no answer: give --no_answer, with which the model learns to leave questions open, or remove {them}")
    cut, windows = records.manifest.get("truncated"), len(records)
    counts = np.bincount(records.domain[np.unique(found.question, return_index=True)[1]], minlength=task.num_domains).tolist()
    note_split(context, split, {"rows": found.questions, "by_domain": {}, "windows": windows, "questions_cut": cut}, found)
    unknown, total = tokenizer.count_unknown(records.input_ids, records.input_mask)
    domains = ", ".join(f"{name} {count}" for name, count in zip(task.domains, counts))
    about = (
        f"{split}: {found.questions} questions of {(text or records).path} ({domains}), {len(without)} without an answer, {windows} "
        f"windows of at most {int(records.lengths.max())} tokens"
    )
    context.log(with_unknown([about, f"{cut} questions of the split cut at --max_query_length"], unknown, total))
    missing = missing_domains(context, split, (text or records).path, np.array(counts), "question")
    if missing:
        context.log(f"warning: {missing}")
    return found


class Candidate(NamedTuple):
    """A possible answer to a question."""

    score: float  # sum of both logits
    window: int
    start: int  # place in the window
    end: int


def best_spans(start, end, most, longest):
    """The best spans of a window: list of (score, first, last), the best first, equal ones in the order of the text.

    Unlike Google's code, which combines the best starts and the best ends only, all spans are compared.

    Args:
        start, end: float [n], logits of the tokens of the context.
        most: number of spans.
        longest: tokens of a span at most.
    """
    count, wide = len(start), min(longest, len(start))
    if not count:
        return []
    ends = np.full((count, wide), -np.inf)
    for more in range(wide):  # the end is `more` tokens after the start
        ends[: count - more, more] = end[more:]
    scores = (start.astype(np.float64)[:, None] + ends).reshape(-1)
    chosen = np.argsort(-scores, kind="stable")[:most]
    return [(float(scores[place]), int(place // wide), int(place // wide + place % wide)) for place in chosen if np.isfinite(scores[place])]


class Found(NamedTuple):
    """What a model finds for the questions of a split."""

    nbest: list  # for each question a list of dicts, as `nbest_SPLIT.json` has them
    losses: np.ndarray  # float64 [N], of each window

    def answers(self):
        """The answer to each question."""
        return [candidates[0]["text"] for candidates in self.nbest]


def find_answers(outputs, windows, most, longest, no_answer):
    """The `Found` answers of a split.

    Args:
        outputs: iterable of (int64 [b], windows; float [B, L, 2], logits of the start and the end of the answer, b <= B).
        windows: `Windows`.
        most: answers of a question.
        longest: tokens of an answer at most.
        no_answer: whether a question may have none. The score of that is the lowest one of its windows at [CLS].
    """
    candidates = [[] for _ in range(windows.questions)]
    empty, losses = np.full(len(candidates), np.inf), np.zeros(len(windows.question))
    for rows, logits in outputs:
        for window, own in zip(rows.tolist(), logits):
            length = int(windows.records.lengths[window])
            check_logits(own[:length])
            question, first, count = (int(array[window]) for array in (windows.question, windows.first, windows.count))
            logs = log_softmax(own[:length].T)
            losses[window] = -(logs[0, windows.start[window]] + logs[1, windows.end[window]]) / 2
            empty[question] = min(empty[question], float(own[0].astype(np.float64).sum()))
            start, end = own[first : first + count].T
            found = [Candidate(score, window, first + left, first + right) for score, left, right in best_spans(start, end, most, longest)]
            candidates[question] += found
    nbest = []
    for question, own in enumerate(candidates):
        nulls = [Candidate(empty[question], -1, 0, 0)] if no_answer or not own else []
        nbest.append(_best_texts(sorted([*own, *nulls], key=lambda each: (-each.score, each.window, each.start)), question, windows, most))
    return Found(nbest, losses)


def _best_texts(candidates, question, windows, most):
    """Dicts of "text", "score", "start", "end" and "probability" for the best candidates of a question; a span that is in several windows
    counts once."""
    context, kept = windows.text.text_b[question], {}
    for each in candidates:
        place = (0, 0) if each.window < 0 else windows.characters(each.window, each.start, each.end)
        if place not in kept and (each.window < 0 or context[slice(*place)]):
            kept[place] = each.score
        if len(kept) == most:
            break
    if not kept:
        kept[0, 0] = 0.0
    weights = np.exp(np.array(list(kept.values())) - max(kept.values()))
    shares = (weights / weights.sum()).tolist()
    return [
        {"text": context[first:last], "probability": share, "score": score, "start": first, "end": last}
        for ((first, last), score), share in zip(kept.items(), shares)
    ]


class AnswerEvaluator(TokenEvaluator):
    """Measures the answers to the questions of a split. In `splits`, a split has its `Windows` besides the samples."""

    def _find(self, split):
        windows, flags = self.splits[split][0], self._context.flags
        options = flags.n_best_size, flags.max_answer_length, flags.no_answer
        self._found[split] = found = find_answers(self._logits(split), windows, *options)
        return found

    def __call__(self, split="dev"):
        """The `Evaluation` of a split. Its rows are questions, those that match exactly are correct; the cross-entropy is the mean over
        windows."""
        windows, found, task = self.splits[split][0], self._find(split), self._context.task
        text = windows.text
        true = [[answer.text for answer in answers] for answers in text.answers]
        shares, hits = (
            np.array([best_of(measure, own, answers) for own, answers in zip(found.answers(), true)]) for measure in (f1, exact_match)
        )

        def measures(here):
            total, correct = int(here.sum()), int(hits[here].sum())
            loss = float(found.losses[here[windows.question]].mean())
            counts = {"accuracy": correct / total, "correct": correct, "total": total, "cross_entropy": loss}
            return {**counts, ANSWER_F1: float(shares[here].mean()), EXACT_MATCH: correct / total}

        by_domain = {name: measures(text.domain == domain) for domain, name in enumerate(task.domains) if (text.domain == domain).any()}
        whole = measures(np.ones(len(text), bool))
        more = {name: whole[name] for name in (ANSWER_F1, EXACT_MATCH)}
        return Evaluation(whole["correct"], whole["total"], whole["cross_entropy"], by_domain, more)

    def write(self, trained):
        """Writes `answers_SPLIT.json`, {id: answer}, which SQuAD's official script reads, and `nbest_SPLIT.json` of each split into the
        run's folder.

        Args:
            trained: whether the variables have changed since dev was evaluated.
        """
        folder = self._context.folder.path
        for split, (windows, _) in self.splits.items():
            found = self._find(split) if split not in self._found or (trained and split == "dev") else self._found[split]
            if parallel.is_main():
                write_answers(answers_path(folder, split), windows.text.ids, found.answers())
                write_answers(nbest_path(folder, split), windows.text.ids, found.nbest)


def write_answers(path, ids, values):
    """Writes a JSON object of a value for each id. The file appears only when it is complete."""
    try:
        with replacing(path) as file:
            file.write((json.dumps(dict(zip(ids, values)), indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
