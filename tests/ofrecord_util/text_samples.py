"""Files of text with a few rows, for two tasks, and what is read from them."""

from ofrecord_util.tasks import Task
from ofrecord_util.text import TextFolder, read_names, read_text
from ofrecord_util.text_files import UNLABELLED, read_rows

TASK = Task("t", ("books", "dvd"), ("positive", "negative"))
PAIRS = Task("p", ("d",), ("0", "1"), pair=True)
ROWS = "".join(f"film {number}\t{('books', 'dvd')[number % 2]}\t{('neg', 'pos')[number // 2 % 2]}\n" for number in range(12)).encode()


def read(tmp_path, data, task=TASK, name="train.csv"):
    path = tmp_path / name
    path.write_bytes(data)
    return read_text(str(path), task)


def read_unlabelled(tmp_path, data, task=TASK, options=None, name="unlabelled.csv"):
    (tmp_path / name).write_bytes(data)
    return TextFolder(str(tmp_path), options).read(UNLABELLED, task)


def names(tmp_path, data):
    return read_names(rows_of(tmp_path, data))


def rows_of(tmp_path, data, *options):
    (tmp_path / "train.csv").write_bytes(data)
    return read_rows(str(tmp_path / "train.csv"), *options)
