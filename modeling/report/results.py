"""Results: accuracy by split and domain, compared with a teacher's, and confusion matrices."""

import math

from modeling.cli.choices import BLEU_4
from modeling.report.markup import Markup, Number, element, table, words
from modeling.run.held_out import held_out_name, title_of
from modeling.run.measures import (
    ANSWERS,
    ENTITIES,
    FURTHER,
    MASKED_TOKENS,
    MSE,
    NUMBERS,
    ORIGINAL_SHARE,
    PERPLEXITY,
    ROUGE_L,
    TASKS,
    TEXT_SCORES,
    TITLES,
    TOKENS,
    shown_of,
)
from modeling.run.predictions import total_of

_SEEN = ("dev", "test")
# What the rows of an evaluation are, by the first of its values that a report shows; of others they are the rows of the text
_KINDS_OF_ROWS = {PERPLEXITY: "masked tokens", ORIGINAL_SHARE: "tokens", ENTITIES[0]: "words", ANSWERS[0]: "questions"}
SPLITS = (*_SEEN, *map(held_out_name, _SEEN))  # the names of the evaluations, those of held-out domains last


def wilson_interval(correct, total, z=1.96):
    """The Wilson score interval (low, high) of a proportion; z = 1.96 for 95 %.

    Unlike the normal approximation, it holds for few samples and for proportions near 1.
    """
    share, extra = correct / total, z * z / total
    middle, spread = share + extra / 2, z * math.sqrt(share * (1 - share) / total + extra / (4 * total))
    return max(0.0, (middle - spread) / (1 + extra)), min(1.0, (middle + spread) / (1 + extra))


def kept_text(accuracy, teacher):
    """The student's accuracy as a percentage of the teacher's: "96.3 %"."""
    return f"{100 * accuracy / teacher:.1f} %" if teacher else "no share"


def tasks_text(result, before=", mean of "):
    """What a report says of the tasks of an evaluation of meta-learning, after `before`; "" without them."""
    return f"{before}{result[TASKS]} tasks per domain" if TASKS in result else ""


def _correct(values):
    """A cell with the number of correct rows, which is a mean over tasks where it is no integer."""
    return values["correct"] if isinstance(values["correct"], int) else Number(f"{values['correct']:,.1f}")


def result_rows(run, split, result=None):
    """The results on a split, by domain and in total, as (header, rows) for `table`; None if the split was not evaluated.

    If a teacher was evaluated on the same split, two more columns contain its accuracy and the percentage that the student keeps.

    Args:
        result: a row of metrics.jsonl; None for the one that `RunFacts.result` returns.
    """
    result, teacher = result or run.result(split), run.result("teacher_" + split)
    if result is None:
        return None
    if MSE in result:
        return _number_rows(run, result)
    of_tokens, share = PERPLEXITY in result, shown_of(result).share_title
    spans = [name for name in (*ENTITIES, *ANSWERS, ORIGINAL_SHARE) if name in result]
    kind = result.get(TOKENS, MASKED_TOKENS) if of_tokens else _KINDS_OF_ROWS.get(next(iter(spans), None), "rows")
    header = ["domain", kind, "correct", share, "95 % interval", "cross-entropy"]
    header += ["perplexity"] if of_tokens else [TITLES[name] for name in spans] or (["teacher", "kept"] if teacher else [])
    by_domain = result.get("by_domain", {})
    named = [name for name in run.domains if name in by_domain]
    entries = [(name, by_domain[name], (teacher or {}).get("by_domain", {}).get(name)) for name in named]
    rows = []
    for name, values, beside in [*(entries if len(entries) > 1 else ()), ("all", result, teacher)]:
        low, high = wilson_interval(values["correct"], values["total"])
        row = [name if len(rows) or len(named) > 1 else "".join(named) or name, values["total"], _correct(values)]
        row += [Number(text) for text in (f"{values['accuracy']:.4f}", f"{low:.3f} to {high:.3f}", f"{values['cross_entropy']:.4f}")]
        if of_tokens:
            row.append(Number(f"{values[PERPLEXITY]:.4f}"))
        elif spans:
            row += [Number(f"{values[name]:.4f}") for name in spans]
        elif teacher:
            known = beside is not None
            row += [Number(f"{beside['accuracy']:.4f}" if known else "")]
            row += [Number(kept_text(values["accuracy"], beside["accuracy"]) if known else "")]
        rows.append(row)
    return header, rows


def _number_rows(run, result):
    """`result_rows` of a regression."""
    by_domain = result.get("by_domain", {})
    named = [(name, by_domain[name]) for name in run.domains if name in by_domain]
    rows = [
        [name, values["total"], *(Number(f"{values[measure]:.4f}") for measure in NUMBERS)]
        for name, values in (*(named if len(named) > 1 else ()), ("all", result))
    ]
    if len(named) == 1:
        rows[-1][0] = named[0][0]
    return ["domain", "rows", *(TITLES[measure] for measure in NUMBERS)], rows


def results_section(run):
    """The section as markup."""
    parts = [element("h2", "Results by domain", id="results")]
    for split in SPLITS:
        found = result_rows(run, split)
        if found:
            caption = title_of(split) + _when(run, split) + tasks_text(run.result(split))
            parts.append(table(*found, class_="results", caption=caption))
    if len(parts) == 1:
        parts.append(element("p", "No split has been evaluated yet."))
    return element("section", *parts)


def _when(run, split):
    best = run.best()
    if best is None or "step" not in best:
        return ""
    return f", the best evaluation (step {best['step']:,})" if split == "dev" else ", the best snapshot"


def confusion_table(counts, labels, caption):
    """A confusion matrix as markup: one row per true label, one column per predicted label, each cell with its percentage of the row.

    Args:
        counts: int [C, C].
    """
    head = [element("th", words("true \\ predicted"), scope="col"), *(element("th", words(label), scope="col") for label in labels)]
    lines = []
    for truth, (label, row) in enumerate(zip(labels, counts.tolist())):
        cells = [element("th", words(label), scope="row")]
        for predicted, count in enumerate(row):
            share = count / sum(row) if sum(row) else 0.0
            kind = "hit" if truth == predicted else "miss"
            shown = element("b", words(f"{count:,}")) + element("small", words(f"{100 * share:.1f} %"))
            cells.append(element("td", shown, class_=kind, style=f"--share:{share:.3f}"))
        lines.append(element("tr", *cells))
    parts = (element("caption", words(caption)), element("thead", element("tr", *head)), element("tbody", *lines))
    body = element("table", *parts, class_="confusion")
    return element("div", body, class_="scroll", tabindex=0, role="region", aria_label=caption)


def confusion_section(run):
    """The section as markup: matrices of student and teacher on dev and test, and folded ones per domain; "" without predictions."""
    has_teacher = any(name.startswith("teacher_") for name in run.predictions)
    shown, by_domain = [], []
    for split in SPLITS:
        for name, who in ((split, "student, " if has_teacher else ""), ("teacher_" + split, "teacher, ")):
            summary = run.predictions.get(name)
            if summary is None or not summary.confusion:
                continue
            shown.append(confusion_table(total_of(summary), summary.labels, who + title_of(split)))
            if len(summary.confusion) > 1:
                named = [domain for domain in run.domains if domain in summary.confusion]
                by_domain += [
                    confusion_table(summary.confusion[domain], summary.labels, f"{who}{title_of(split)}, {domain}") for domain in named
                ]
    if not shown:
        return ""
    parts = [element("h2", "Confusion", id="confusion"), element("div", *shown, class_="matrices")]
    if by_domain:
        parts.append(element("details", element("summary", "By domain"), element("div", *by_domain, class_="matrices")))
    return element("section", *parts)


def tiles(run):
    """The numbers at the top of the page: list of (name, value, detail)."""
    shown = []
    for split in SPLITS:
        result, teacher = run.result(split), run.result("teacher_" + split)
        if result is None:
            continue
        if PERPLEXITY in result:
            shown.append((f"{split} perplexity", f"{result[PERPLEXITY]:.4f}", f"{result['total']:,} {result.get(TOKENS, MASKED_TOKENS)}"))
            continue
        score = next((name for name in (ENTITIES[0], ANSWERS[0]) if name in result), None)
        if score:
            shown.append(
                (
                    f"{split} {TITLES[score]}",
                    f"{result[score]:.4f}",
                    f"{result['total']:,} words" if score in ENTITIES else f"{result['total']:,} questions",
                )
            )
            continue
        first, counted = shown_of(result), "correct" in result and TASKS not in result
        shown.append(
            (
                f"{title_of(split)}: {first.share_title}" if split not in _SEEN else f"{split} {first.share_title}",
                f"{result[first.share]:.4f}",
                f"{result['correct']:,} of {result['total']:,}" if counted else f"{result['total']:,} rows{tasks_text(result)}",
            )
        )
        if teacher:
            kept = kept_text(result["accuracy"], teacher["accuracy"])
            shown.append((f"kept of the teacher, {title_of(split)}", kept, f"teacher {teacher['accuracy']:.4f}"))
    for split, scores in run.text_scores.items():
        shown.append((f"{split} {TITLES[BLEU_4]}", f"{scores[BLEU_4]:.4f}", f"{TITLES[ROUGE_L]} {scores[ROUGE_L]:.4f}"))
    best, train = run.best(), run.kind("train")
    if best is not None and "step" in best:
        metric = run.flags.get("metric_for_best")
        metric = metric if metric in (*FURTHER, *NUMBERS, *TEXT_SCORES) and metric in best else shown_of(best).loss
        shown.append(("best step", f"{best['step']:,}", f"dev {TITLES[metric]} {best[metric]:.4f}"))
    if train:
        total, epochs = run.record.get("total_steps"), run.flags.get("num_epochs")
        of = f"of {total:,} steps, " if total else "steps, "
        shown.append(("trained", f"{train[-1]['step']:,}", f"{of}{train[-1].get('epoch', 0):.4g} of {epochs} epochs"))
    if run.record.get("parameters"):
        shown.append(
            ("parameters", f"{run.record['parameters'] / 1e6:.1f} M", f"{run.record.get('samples_per_step', '')} samples per step")
        )
    return shown


def tile_list(run):
    """The numbers at the top of the page as markup."""
    parts = [(element("span", words(name)), element("b", words(value)), element("small", words(of))) for name, value, of in tiles(run)]
    cells = [element("li", *part) for part in parts]
    return Markup(element("ul", *cells, class_="tiles")) if cells else Markup("")
