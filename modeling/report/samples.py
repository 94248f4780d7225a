"""Samples: the hardest ones of dev with their text, and the training samples' prototypical scores and map."""

import numpy as np

from modeling.report.charts import MOST_MARKS, embedding_map, histograms
from modeling.report.curves import figure
from modeling.report.markup import element, words
from modeling.report.svg import colour_of, marker_swatch

_SHORT, _LONG = 320, 4000  # characters of a text that are shown at once, and on demand


def _text_markup(text):
    """A text; a long one opens on demand, an endless one is cut and says so."""
    if len(text) <= _SHORT:
        return element("p", words(text), class_="text")
    rest = words(text[_SHORT:_LONG])
    if len(text) > _LONG:
        rest += element("i", words(f" … {len(text) - _LONG:,} more characters"))
    return element("details", element("summary", words(text[:_SHORT] + "…")), element("p", "…" + rest), class_="text")


def _sample_markup(sample, labels):
    """A sample: what it is, what was said of it, its text."""
    wrong = sample.label != sample.predicted
    said = "taken for" if wrong else "rightly taken for"
    head = [element("b", words(f"row {sample.idxs:,}")), element("span", words(sample.domain), class_="chip")]
    head += [element("span", "is ", element("b", words(sample.label))), element("span", f"{said} ", element("b", words(sample.predicted)))]
    bars = []
    for label, probability in zip(labels, sample.probabilities):
        bar = element("span", class_="share " + ("hit" if label == sample.label else "miss"), style=f"--share:{min(1.0, probability):.4f}")
        bars.append(element("li", element("span", words(label)), bar, element("span", words(f"{probability:.4f}"), class_="number")))
    shown = [element("div", *head, class_="head"), element("ul", *bars, class_="bars"), *map(_text_markup, sample.texts)]
    return element("li", *shown, class_="sample")


def hardest_section(run):
    """The section as markup; "" where no predictions are at hand."""
    summary = run.predictions.get("dev")
    if summary is None or not summary.hardest:
        return ""
    wrong = sum(sample.label != sample.predicted for sample in summary.hardest)
    said = (
        f"The {len(summary.hardest)} samples of dev whose true label got the least probability, the worst first; {wrong} of them are taken "
        "for another label. The blue bar is the true label's probability. Rows count from 0."
    )
    items = [_sample_markup(sample, summary.labels) for sample in summary.hardest]
    parts = [element("h2", "Hardest samples of dev", id="hardest"), element("p", words(said)), element("ol", *items, class_="samples")]
    return element("section", *parts)


def training_section(run):
    """The prototypical scores by domain and the map of the training samples, as markup; "" where preprocess.py's files are not at hand."""
    samples = run.samples
    if samples is None:
        return ""
    domains, labels = run.domains, run.record.get("task", {}).get("labels", [])
    groups = [(name, samples.scores[samples.domain == place], colour_of(place)) for place, name in enumerate(domains)]
    chart = histograms("Prototypical scores of the training samples by domain", groups, "prototypical score")
    note = "How near a sample lies to the prototypes of its class, in its own domain and in the others (cosine, 1 at most): its weight."
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
        f"{shown}, as the encoder of step 1 represents them, in the plane in which they differ most "
        f"({100 * np.sum(drawn.explained):.0f} % of the variance). Colours are domains, shapes classes; the large marks are prototypes."
    )
    chart = embedding_map("Training samples and prototypes in the plane of the first two principal components", drawn, domains, labels)
    return figure("Map of the training samples", chart, legend, note)
