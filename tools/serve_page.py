"""The page of tools/serve.py on which a text is tried. It loads nothing from elsewhere and shows all text as text."""

import base64
import hashlib

from modeling.report.markup import element, words

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 44rem; padding: 1.5rem 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; }
p { margin: .25rem 0 1rem; }
label { display: block; font-weight: 600; margin: .75rem 0 .25rem; }
textarea { box-sizing: border-box; font: inherit; min-height: 6rem; padding: .5rem; width: 100%; }
button { font: inherit; margin-top: .75rem; padding: .5rem 1.25rem; }
table { border-collapse: collapse; margin-top: 1rem; table-layout: fixed; width: 100%; }
th { width: 35%; }
td, th { border-bottom: 1px solid #8886; padding: .35rem .5rem .35rem 0; text-align: left; vertical-align: middle; }
td:last-child { text-align: right; width: 4rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
meter { width: 100%; }
caption { font-weight: 600; padding: .5rem 0; text-align: left; }
#answer { margin-top: 1rem; }
.error { border-left: 4px solid #c33; padding-left: .75rem; }
code { font-size: .9em; }
"""

_SCRIPT = """
"use strict";
const form = document.querySelector("form"), answer = document.getElementById("answer");
function add(parent, name, text) {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  return parent.appendChild(element);
}
function values(title, rows) {
  const table = add(answer, "table");
  add(table, "caption", title);
  for (const [name, value] of rows) {
    const row = add(table, "tr");
    add(row, "th", name).scope = "row";
    const meter = add(add(row, "td"), "meter");
    meter.value = Math.max(0, value);
    meter.setAttribute("aria-label", name);
    add(row, "td", value.toFixed(3));
  }
}
form.addEventListener("submit", async event => {
  event.preventDefault();
  const body = {text: form.elements.text.value};
  if (form.elements.pair) body.pair = form.elements.pair.value;
  answer.replaceChildren();
  let found;
  try {
    const response = await fetch("predict", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
    found = await response.json();
  } catch (error) {
    found = {error: "the server does not answer"};
  }
  if (found.error !== undefined) {
    add(answer, "p", found.error).className = "error";
    return;
  }
  const title = found.labels ? "Labels: " + (found.labels.join(", ") || "none") : "Label: " + found.label;
  if (found.probabilities) values(title, Object.entries(found.probabilities));
  else add(answer, "p", title);
  if (found.domain_scores) values("Similarity to domains", Object.entries(found.domain_scores));
});
"""


def _digest(text):
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"


# The browser runs this script and this style alone, and talks to this server alone
POLICY = (
    f"default-src 'none'; script-src {_digest(_SCRIPT)}; style-src {_digest(_STYLE)}; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def page(name, task):
    """The page as HTML.

    Args:
        name: of the model.
        task: its `Task`.
    """
    fields = [element("label", words("First text" if task.pair else "Text"), for_="text"), element("textarea", id="text", required="")]
    if task.pair:
        fields += [element("label", words("Second text"), for_="pair"), element("textarea", id="pair")]
    body = (
        element("h1", words("Try a text")),
        element("p", words(f"Model {name}. Labels: {', '.join(task.labels)}.")),
        element("form", *fields, element("button", words("Predict"), type="submit")),
        element("div", id="answer", role="status"),
        element("noscript", element("p", words("This page needs JavaScript. POST /predict works without it."))),
        element("script", _SCRIPT),
    )
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        element("title", words(name)),
        element("style", _STYLE),
    )
    return "<!DOCTYPE html>\n" + element("html", element("head", *head), element("body", *body), lang="en") + "\n"
