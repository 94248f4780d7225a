"""Samples: the hardest dev samples with their texts; prototypical scores and a map of the training samples."""

import numpy as np

from modeling.report.charts import MOST_MARKS, embedding_map, histograms
from modeling.report.curves import figure
from modeling.report.markup import element, words
from modeling.report.svg import colour_of, marker_swatch
from ofrecord_util.label_kinds import CLASSIFICATION, LABEL_KINDS, MULTI_LABEL, REGRESSION

_SHORT, _LONG = 320, 4000  # characters of a text: shown at first, and at most after a click

_NONE = "no label"
_HARDEST = {  # what is said of the samples
    CLASSIFICATION: "The {count} dev samples whose true label has the lowest probability, lowest first. {wrong} of them are predicted "
    "as another label. The blue bar is the probability of the true label. Rows count from 0.",
    REGRESSION: "The {count} dev samples with the largest errors, largest first. Rows count from 0.",
    MULTI_LABEL: "The {count} dev samples with the lowest mean probability of what is true of each label, lowest first. {wrong} of them "
    "have a wrong set of labels. Blue bars are the probabilities of true labels. Rows count from 0.",
}


def _text_markup(text):
    """A text. A long text opens after a click. A text of more than _LONG characters is truncated, with a note."""
    if len(text) <= _SHORT:
        return element("p", words(text), class_="text")
    rest = words(text[_SHORT:_LONG])
    if len(text) > _LONG:
        rest += element("i", words(f" … {len(text) - _LONG:,} more characters"))
    return element("details", element("summary", words(text[:_SHORT] + "…")), element("p", "…" + rest), class_="text")


def _sample_markup(sample, labels, task_type):
    """One sample: its row, domain, true and predicted label, probabilities and texts."""
    wrong = sample.label != sample.predicted
    said = "predicted as" if wrong else "correctly predicted as"
    head = [element("b", words(f"row {sample.idxs:,}")), element("span", words(sample.domain), class_="chip")]
    true, predicted = (element("b", words(name or _NONE)) for name in (sample.label, sample.predicted))
    head += [element("span", "is ", true), element("span", f"{said} ", predicted)]
    bars = []
    for label, probability in zip(labels, sample.probabilities):
        there = label in LABEL_KINDS[task_type].names(sample.label)
        bar = element("span", class_="share " + ("hit" if there else "miss"), style=f"--share:{min(1.0, probability):.4f}")
        bars.append(element("li", element("span", words(label)), bar, element("span", words(f"{probability:.4f}"), class_="number")))
    shown = [element("div", *head, class_="head"), element("ul", *bars, class_="bars"), *map(_text_markup, sample.texts)]
    return element("li", *shown, class_="sample")


def hardest_section(run):
    """The section as markup; "" without predictions."""
    summary = run.predictions.get("dev")
    if summary is None or not summary.hardest:
        return ""
    wrong = sum(sample.label != sample.predicted for sample in summary.hardest)
    said = _HARDEST[summary.task_type].format(count=len(summary.hardest), wrong=wrong)
    items = [_sample_markup(sample, summary.labels, summary.task_type) for sample in summary.hardest]
    parts = [element("h2", "Hardest samples of dev", id="hardest"), element("p", words(said)), element("ol", *items, class_="samples")]
    return element("section", *parts)


def training_section(run):
    """The section as markup: prototypical scores by domain and the map of the training samples; "" without the files of preprocess.py."""
    samples = run.samples
    if samples is None:
        return ""
    domains, labels = run.domains, run.record.get("task", {}).get("labels", [])
    groups = [(name, samples.scores[samples.domain == place], colour_of(place)) for place, name in enumerate(domains)]
    chart = histograms("Prototypical scores of the training samples by domain", groups, "prototypical score")
    note = "Weighted mean of the cosine similarities (at most 1) to the prototypes of the sample's class in its own and in other domains."
    figures = [figure("Prototypical scores", chart, (), note)]
    if samples.map is not None:
        figures.append(_map_figure(samples.map, domains, labels))
    return element("section", element("h2", "Training samples", id="training"), element("div", *figures, class_="charts wide"))


def _map_figure(drawn, domains, labels):
    count = len(drawn.coordinates)
    legend = [(marker_swatch(0, f"point {colour_of(place)}"), name) for place, name in enumerate(domains)]
    legend += [(marker_swatch(place, "point ink"), name) for place, name in enumerate(labels)]
    shown = f"{MOST_MARKS:,} of {count:,} samples, evenly spread over the rows" if count > MOST_MARKS else f"{count:,} samples"
    note = (
        f"{shown}, represented by the encoder of step 1, in the plane of the first two principal components "
        f"({100 * np.sum(drawn.explained):.0f} % of the variance). Colours show domains, shapes show classes, large markers are prototypes."
    )
    chart = embedding_map("Training samples and prototypes in the plane of the first two principal components", drawn, domains, labels)
    return figure("Map of the training samples", chart, legend, note)
