"""HTML and SVG elements as text. All text and attribute values are escaped."""

from html import escape


def element(name, *content, **attributes):
    """One element.

    Args:
        content: pieces of markup. Pass plain text through `words` first.
        attributes: values are escaped. An attribute of None is left out. `class_` is written as "class", and _ in a name as -.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"' for key, value in attributes.items() if value is not None
    )
    return f"<{name}{shown}>{''.join(content)}</{name}>"


def words(text):
    """Plain text as markup."""
    return escape(str(text))


def table(header, rows, class_=None, caption=None):
    """A table in a box that scrolls on narrow screens.

    Args:
        header: list of str.
        rows: lists of cells, each a str or a number. Numbers are right-aligned. The first cell is the name of the row.
        caption: str above the table.
    """
    numeric = [any(_is_number(row[place]) for row in rows) for place in range(len(header))]
    kinds = ["number" if numbers else None for numbers in numeric]
    lines = [element("tr", *(element("th", words(cell), scope="col", class_=kind) for cell, kind in zip(header, kinds)))]
    for first, *rest in rows:
        cells = [element("th", _shown(first), scope="row", class_=kinds[0])]
        cells += [element("td", _shown(cell), class_=kind) for cell, kind in zip(rest, kinds[1:])]
        lines.append(element("tr", *cells))
    above = "" if caption is None else element("caption", words(caption))
    body = element("table", above, element("thead", lines[0]), element("tbody", *lines[1:]), class_=class_)
    return element("div", body, class_="scroll", tabindex=0, role="region", aria_label=caption or header[0])


class Markup(str):
    """A table cell whose text is markup."""


class Number(str):
    """A table cell whose text is a number."""


def _is_number(cell):
    return isinstance(cell, (int, float, Number))


def _shown(cell):
    return cell if isinstance(cell, Markup) else words(f"{cell:,}" if isinstance(cell, int) else cell)
