"""`report.html`: a whole run on one page, without scripts and without external resources."""

import os

from modeling.report.curves import curves_section
from modeling.report.generations import generations_section
from modeling.report.markup import element, words
from modeling.report.measures import measures_section
from modeling.report.results import confusion_section, results_section, tile_list
from modeling.report.samples import hardest_section, training_section
from modeling.report.settings import settings_section
from ofrecord_util.errors import UserError
from ofrecord_util.files import replacing
from ofrecord_util.output_checks import check_output

REPORT_FILE = "report.html"
_STYLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.css")
_LINKS = {
    "results": "results",
    "measures": "further measures",
    "curves": "curves",
    "generated": "generated texts",
    "confusion": "confusion",
    "hardest": "hardest samples",
    "training": "training samples",
    "run": "settings",
}


def status(run):
    """One sentence that says how far the run got."""
    train = run.kind("train")
    if run.states:
        return f"Stopped after step {train[-1]['step']:,}: --resume continues the run." if train else "Stopped: --resume continues the run."
    if not train:
        return "Evaluated without training." if run.result("dev") or run.result("test") else "The run has no results yet."
    total, last = run.record.get("total_steps"), train[-1]["step"]
    if total and last < total:
        return f"Stopped after step {last:,} of {total:,}."
    return "Training finished." if run.best() else "Trained; metrics.jsonl contains no evaluation on dev."


def page(run):
    """The page of a run (`RunFacts`) as text."""
    title = " · ".join(filter(None, (run.script or "run", run.record.get("task", {}).get("name"), os.path.basename(run.folder))))
    parts = {
        "results": results_section(run),
        "measures": measures_section(run),
        "curves": curves_section(run),
        "generated": generations_section(run),
        "confusion": confusion_section(run),
        "hardest": hardest_section(run),
        "training": training_section(run),
        "run": settings_section(run),
    }
    links = [element("a", words(_LINKS[name]), href="#" + name) for name, section in parts.items() if section]
    sections = list(parts.values())
    if run.missing:
        items = [element("li", words(line)) for line in run.missing]
        sections.append(element("section", element("h2", "Not on this page"), element("ul", *items), class_="missing"))
    header = element("header", element("h1", words(title)), element("p", words(status(run))), element("nav", *links), tile_list(run))
    return document(title, header, *sections)


def document(title, *parts):
    """A whole HTML document with the style sheet of the reports.

    Args:
        title: str.
        parts: the content as markup.
    """
    with open(_STYLE, encoding="utf-8") as file:
        style = element("style", file.read())
    meta = {"viewport": "width=device-width, initial-scale=1", "color-scheme": "light dark"}
    metas = "".join(f'<meta name="{name}" content="{content}">' for name, content in meta.items())
    head = element("head", '<meta charset="utf-8">' + metas, element("title", words(title)), style)
    return "<!DOCTYPE html>\n" + element("html", head, element("body", element("main", *parts)), lang="en") + "\n"


def check_page(path, flag, used, makes_folder=False):
    """Checks before the work that a page can be written. It may replace an earlier page, also one in the folder of a run, but no other
    file that the command uses, and no file that a run wrote, such as its report.

    Args:
        path: of the page.
        flag: that names it.
        used: the files and folders that the command reads or writes.
        makes_folder: as in `check_output`.
    Raises:
        UserError: as of `check_output`.
    """
    place = os.path.realpath(path)
    is_page = place.endswith(".html") and os.path.basename(place) != REPORT_FILE
    check_output(path, flag, makes_folder, () if is_page else used)


def write_page(run, path=None):
    """Writes the page of a run and returns its path.

    Args:
        run: `RunFacts`.
        path: the file; None for report.html in the run's folder.
    Raises:
        UserError: the file cannot be written.
    """
    return write_document(path or os.path.join(run.folder, REPORT_FILE), page(run))


def write_document(path, text):
    """Writes an HTML document, whole or not at all, and returns its path. UserError if the file cannot be written."""
    try:
        with replacing(path) as file:
            file.write(text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    return path
