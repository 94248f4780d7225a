"""`curves.png`: the loss and its terms over the steps, with the chance level of the domain loss; the accuracies below."""

import contextlib
import math
import os
import warnings

from modeling.run.measures import shown_of

CURVES_FILE = "curves.png"

# Tried in this order for characters that DejaVu, the font that Matplotlib brings, does not have
_FALLBACK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Noto Sans")


@contextlib.contextmanager
def _any_script():
    """Lets a drawing name domains in any script. A character that no font has becomes a box, without a warning on the terminal."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]
    with matplotlib.rc_context({"font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def draw_curves(run):
    """Draws curves.png into the run's folder.

    Args:
        run: `RunFacts`.
    Returns:
        the path of the file, or None for a run without training.
    """
    if not run.kind("train"):
        return None
    with _any_script():
        return _draw(run)


def _draw(run):
    train, dev = run.kind("train"), run.kind("dev")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = shown_of(dev[0] if dev else {})
    figure = Figure(figsize=(9, 8), constrained_layout=True)
    FigureCanvasAgg(figure)
    losses, accuracies = figure.subplots(2, 1, sharex=True)
    losses.set_title(f"{run.script} {run.record.get('task', {}).get('name', '')}")
    for name in [n for n in train[0] if n == "loss" or n.endswith("_loss")]:
        losses.plot([row["step"] for row in train], [row[name] for row in train], label=name.replace("_", " "), linewidth=1)
    if dev:
        losses.plot(
            [row["step"] for row in dev],
            [row[shown.loss] for row in dev],
            "k.-",
            label=f"dev {shown.loss_title}",
            linewidth=1,
        )
    num_domains = len(run.domains)
    if num_domains > 1 and any("domain_loss" in row for row in train):
        losses.axhline(math.log(num_domains), color="gray", linestyle=":", linewidth=1, label="domain loss at chance")
    losses.set_ylabel("loss (nats)" if shown.loss == "cross_entropy" else "loss")
    losses.legend(fontsize=8)
    for name in sorted({n for row in dev for n in row.get("by_domain", {})}):
        accuracies.plot(
            [r["step"] for r in dev],
            [r["by_domain"][name][shown.share] for r in dev],
            ".-",
            linewidth=1,
            label="dev " + name,
        )
    if dev:
        accuracies.plot([row["step"] for row in dev], [row[shown.share] for row in dev], "k.-", label="dev, all")
    if any("domain_accuracy" in row for row in train):
        accuracies.plot(
            [row["step"] for row in train],
            [row["domain_accuracy"] for row in train],
            ":",
            color="gray",
            label="domain head (corrupted domain)",
        )
    accuracies.set_xlabel("step")
    accuracies.set_ylabel(shown.share_title)
    accuracies.set_ylim(-0.02 if shown.share == "accuracy" else -1.02, 1.02)
    accuracies.legend(fontsize=8, loc="lower right")
    path = os.path.join(run.folder, CURVES_FILE)
    figure.savefig(path, dpi=110)
    return path
