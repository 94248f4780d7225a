"""The curves of a run over its steps: loss and loss terms, accuracy, learning rate."""

import math

from modeling.cli.choices import ANSWER_F1, ENTITY_F1
from modeling.report.charts import MOST_POINTS, Line, line_chart
from modeling.report.markup import element, words
from modeling.report.scale import finite
from modeling.report.svg import colour_of, dash_of, line_swatch
from modeling.run.measures import shown_of

_SHARES = {  # accuracies of training rows that are not those of samples
    "mlm_accuracy": "training, masked tokens",
    "token_accuracy": "training, target tokens",
    "discriminator_accuracy": "training, replaced tokens",
    "pair_accuracy": "training, pairs of a batch",
    "tag_accuracy": "training, tokens with a tag",
    "start_accuracy": "training, start of the answer",
}


def loss_names(train):
    """Names of the loss and of its terms in the training rows, in the order of the rows."""
    return [name for name in (train[0] if train else {}) if name == "loss" or name.endswith("_loss")]


def _column(rows, name):
    return [row["step"] for row in rows], [row.get(name, math.nan) for row in rows]


def figure(title, chart, legend=(), note=""):
    """A chart with a title, a legend (pairs of swatch and name) and a note below."""
    items = [element("li", swatch, words(name)) for swatch, name in legend]
    shown = element("ul", *items, class_="legend") if items else ""
    return element("figure", element("figcaption", words(title)), shown, chart, element("p", words(note), class_="note") if note else "")


def _legend(lines, references=()):
    shown = [(line_swatch(line.class_, line.dash), line.name) for line in lines]
    return shown + [(line_swatch("reference"), f"{name}: {value:.4f}") for name, value in references]


def _domain_lines(run, rows, value):
    """One `Line` per domain of the dev rows, if there are several domains."""
    named = [name for name in run.domains if any(name in row.get("by_domain", {}) for row in rows)]
    lines = []
    for name in named if len(named) > 1 else ():
        place, here = run.domains.index(name), [row for row in rows if name in row.get("by_domain", {})]
        ys = [row["by_domain"][name][value] for row in here]
        lines.append(Line(name, [row["step"] for row in here], ys, colour_of(place), dash_of(place)))
    return lines


def accuracy_figure(run, train, dev):
    """The figure of the accuracy (of a regression the correlation) in training and on dev, by domain; "" if neither was measured."""
    shown = shown_of(dev[0] if dev else {})
    lines = _domain_lines(run, dev, shown.share)
    if any("accuracy" in row for row in train):
        lines.insert(0, Line("training", *_column(train, "accuracy"), "muted"))
    for name, title in _SHARES.items():
        if any(name in row for row in train):
            lines.insert(0, Line(title, *_column(train, name), "muted"))
    if any("domain_accuracy" in row for row in train):
        lines.append(Line("domain head (corrupted domain)", *_column(train, "domain_accuracy"), "muted", "2 3"))
    if dev:
        lines.append(Line("dev, all domains" if len(lines) > 2 else "dev", *_column(dev, shown.share), "ink", None, True, True))
    teacher = run.result("teacher_dev")
    references = [("teacher on dev", teacher["accuracy"])] if teacher else []
    values = finite([y for line in lines for y in line.ys] + [value for _, value in references])
    if not values:
        return ""
    low = max(0.0 if shown.share == "accuracy" else -1.0, math.floor(10 * min(values) - 1e-9) / 10)
    title = shown.share_title[0].upper() + shown.share_title[1:]
    chart = line_chart(f"{title} over the steps", lines, shown.share_title, references, (min(low, 0.9), 1.0), 250)
    return figure(title, chart, _legend(lines, references), _thinned(lines))


def f1_figure(run, dev):
    """The figure of the F1 of entities or answers on dev, by domain; "" if it was not measured."""
    name = next((name for name in (ENTITY_F1, ANSWER_F1) if any(name in row for row in dev)), None)
    if name is None:
        return ""
    lines = _domain_lines(run, dev, name)
    lines.append(Line("all domains" if lines else "dev", *_column(dev, name), "ink", None, True, True))
    chart = line_chart("F1 on dev over the steps", lines, "F1", (), (0.0, 1.0), 250)
    return figure("F1 on dev", chart, _legend(lines) if len(lines) > 1 else (), _thinned(lines))


def loss_figures(run, train, dev):
    """List of figures: the loss, each of its terms, and the cross-entropy on dev."""
    figures, domains = [], len(run.domains)
    for name in loss_names(train):
        line = Line("training", *_column(train, name), "s0")
        references = []
        if name == "domain_loss" and domains > 1 and run.script != "meta_distill":
            references = [(f"chance level, ln {domains}", math.log(domains)), (f"best possible, ln {domains - 1}", math.log(domains - 1))]
        title = name.replace("_", " ")
        chart = line_chart(f"{title} over the steps", [line], "nats" if name == "domain_loss" else None, references)
        figures.append(figure(title.capitalize(), chart, _legend([line], references) if references else (), _thinned([line])))
    if dev:
        shown = shown_of(dev[0])
        lines = _domain_lines(run, dev, shown.loss)
        lines.append(Line("all domains" if lines else "dev", *_column(dev, shown.loss), "ink", None, True, True))
        title = f"{shown.loss_title.capitalize()} on dev"
        chart = line_chart(f"{title} over the steps", lines, "nats" if shown.loss == "cross_entropy" else None)
        figures.append(figure(title, chart, _legend(lines) if len(lines) > 1 else (), _thinned(lines)))
    return figures


def _thinned(lines):
    longest = max((len(line.xs) for line in lines), default=0)
    if longest <= MOST_POINTS:
        return ""
    return f"{longest:,} points; the chart shows means of up to {-(-longest // MOST_POINTS)} neighbours."


def curves_section(run):
    """The section as markup."""
    train = [row for row in run.kind("train") if "step" in row]
    dev = [row for row in run.kind("dev") if "step" in row]
    parts = [element("h2", "Curves", id="curves")]
    if not train and not dev:
        none = "metrics.jsonl contains no training step: the run only evaluated, or it stopped before its first line of metrics."
        return element("section", *parts, element("p", none))
    figures = [accuracy_figure(run, train, dev), f1_figure(run, dev), *loss_figures(run, train, dev)]
    if any("learning_rate" in row for row in train):
        line = Line("learning rate", *_column(train, "learning_rate"), "s0")
        figures.append(figure("Learning rate", line_chart("Learning rate over the steps", [line])))
    return element("section", *parts, element("div", *figures, class_="charts"))
