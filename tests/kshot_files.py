"""Files of text for the tests of tools/make_kshot.py, and its commands."""

import json
import os

from tools.make_kshot import main

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def sentence(domain, number):
    """A text that no other one contains, with no short words in common beginnings."""
    return f"{domain}{number:03} is a thing of number {number:03}"


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def table(path, domain, numbers, order=(0, 1), header=""):
    """Rows of text and label (0 for even numbers), in the order of columns that is asked for."""
    rows = [(sentence(domain, number), str(number % 2)) for number in numbers]
    return write(path, header + "".join("\t".join(row[i] for i in order) + "\n" for row in rows))


def rows_of(path):
    with open(str(path), "rb") as file:
        data = file.read()
    assert data.endswith(b"\n")
    assert b"\r" not in data
    return [tuple(line.split("\t")) for line in data.decode("utf-8").split("\n")[:-1]]


def tree(folder):
    """dict of path -> bytes of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def texts_of(out, split, domain="d"):
    """dict of text -> label of one domain's split, of the only K-SEED."""
    (path,) = (out / "k-shot-single" / domain).glob(f"*/{split}.csv")
    return {text: label for text, _, label in rows_of(path)}


def kshot(out, *words):
    main(["kshot", "--group", "g", "--output_dir", str(out), *map(str, words)])
    return json.loads((out / "make_kshot.json").read_text(encoding="utf-8"))["counts"]


def portions(out, *words):
    main(["portions", "--output_dir", str(out), *map(str, words)])
    return json.loads((out / "make_kshot.json").read_text(encoding="utf-8"))["counts"]


def reviews(texts):
    return "".join(f"<review>\n<title>\nA & B <i>\n</title>\n<review_text>\n{text}\n</review_text>\n</review>\n" for text in texts)


def fdu(path, domain, numbers, more=b""):
    """A file in the form of FDU-MTL: rows of label and text."""
    rows = "".join(f"{number % 2}\t{sentence(domain, number)}\n" for number in numbers)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rows.encode() + more)
    return path
