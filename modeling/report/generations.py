"""Generated texts: BLEU and ROUGE-L by split, and the first texts of dev with their sources and targets."""

from modeling.report.markup import Number, element, table, words
from modeling.run.measures import TEXT_SCORES, TITLES

_LONGEST = 2000  # characters of a text that are shown


def score_rows(run):
    """BLEU and ROUGE-L of each split as (header, rows) for `table`; None if no texts were generated."""
    rows = []
    for split, result in run.text_scores.items():
        scores = [Number(f"{result[name]:.4f}") for name in TEXT_SCORES]
        rows.append([split, result["rows"], result["rows"] - result["ended"], *scores])
    return (["split", "texts", "cut at the greatest length", *map(TITLES.get, TEXT_SCORES)], rows) if rows else None


def _text(name, text):
    shown = text if len(text) <= _LONGEST else text[:_LONGEST] + f" … {len(text) - _LONGEST:,} more characters"
    return element("p", element("b", words(name + " ")), words(shown), class_="text")


def generations_section(run):
    """The section as markup; "" without generated texts."""
    found = score_rows(run)
    if found is None:
        return ""
    parts = [element("h2", "Generated texts", id="generated"), table(*found, class_="results", caption="the best snapshot, beam search")]
    samples = run.generations.get("dev", [])
    if samples:
        items = []
        for sample in samples:
            head = [element("b", words(f"row {sample.row:,}")), element("span", words(f"score {sample.score:.4g}"))]
            texts = [_text(name, getattr(sample, name)) for name in ("source", "target", "generated")]
            items.append(element("li", element("div", *head, class_="head"), *texts, class_="sample"))
        same = sum(sample.generated == sample.target for sample in samples)
        said = f"The first {len(samples)} rows of dev; {same} of them are generated as the target has them. Rows count from 0."
        parts += [element("p", words(said)), element("ol", *items, class_="samples")]
    return element("section", *parts)
