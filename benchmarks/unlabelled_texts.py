"""Texts without labels for the benchmarks: reviews of FDU-MTL and the training text of SENTI, without those that reveal a test row."""

import os

from benchmarks.learners_data import SPLITS, FewShotDraws, ReviewDraws, read_rows, write_folder
from ofrecord_util.files import replacing
from ofrecord_util.reading import TEXT_LIMIT, read_bytes
from tools.kshot_corpora import make_row, parse_source, read_source
from tools.kshot_leaks import find_leaks

ENCODERS = ALL, FIRST, SECOND, SENTI = ("reviews", "first", "second", "SENTI")
DEV_DRAW = "50-42"  # of FDU-MTL, on whose dev rows the perplexity of every encoder is measured
FDU_DOMAINS = {"books": "books", "dvd": "dvd", "electronics": "electronics", "kitchen": "kitchen_housewares"}  # of each domain of SENTI


class Texts:
    """The texts of the encoders, without those that reveal a test row. Each is written once.

    Args:
        data_dir: folder of the raw data.
        folder: folder for the texts.
    """

    def __init__(self, data_dir, folder):
        self.folder = folder
        self._few, self.reviews = FewShotDraws(data_dir, folder), ReviewDraws(data_dir, folder)
        self._data_dir = os.path.abspath(data_dir)

    def _tests(self):
        """All test rows that something is measured on."""
        texts = [row[0] for row in (*self._few.tests(), *read_rows(os.path.join(self._data_dir, "SENTI"), "test"))]
        rows = [make_row(text, "") for text in texts]
        for domain in self.reviews.domains:
            rows += self._fdu(domain, self._path(domain, "test"))
        return rows

    def _path(self, domain, split):
        return os.path.join(self._data_dir, "fdu-mtl", f"{domain}.task.{split}")

    def _fdu(self, domain, path):
        return read_source(parse_source("--data_dir", f"{domain}=fdu:{path}"), "--data_dir", log=lambda _: None).rows

    def _unlabelled(self, domain):
        """Rows of a file of text alone: read as rows of the form `fdu`, whose labels mean nothing."""
        lines = read_bytes(self._path(domain, "unlabel"), "check --data_dir", TEXT_LIMIT).split(b"\n")
        path = os.path.join(self.folder, f"{domain}.fdu")
        os.makedirs(self.folder, exist_ok=True)
        with replacing(path) as file:
            file.writelines(b"%d\t%s\n" % (row % 2, line.replace(b"\t", b" ")) for row, line in enumerate(lines) if line.strip())
        return self._fdu(domain, path)

    def _rows(self, name):
        if name == SENTI:
            return [make_row(row[0], "") for row in read_rows(os.path.join(self._data_dir, "SENTI"), "train")]
        domains = {ALL: self.reviews.domains, FIRST: self.reviews.domains[::2], SECOND: self.reviews.domains[1::2]}[name]
        return [row for domain in domains for row in self._unlabelled(domain)]

    def file(self, name):
        """The text file of an encoder."""
        path = os.path.join(self.folder, f"{name}.txt")
        if not os.path.exists(path):
            rows = self._rows(name)
            kept = [row.text for row, leak in zip(rows, find_leaks(rows, self._tests())) if leak is None]
            kept = list(dict.fromkeys(kept))
            with replacing(path) as file:
                file.write("".join(text + "\n" for text in kept).encode("utf-8"))
            print(f"{name}: {len(kept)} texts, {len(rows) - len(kept)} left out", flush=True)
        return path

    def unlabelled_split(self, data_dir):
        """Writes DATA_DIR/unlabelled.csv for `meta_distill.py --unlabelled`, unless it exists: the unlabelled reviews of the domains of
        SENTI, without those that reveal a test row or a dev row of SENTI, and without those of its training text.

        Args:
            data_dir: a folder with train.csv and dev.csv of SENTI.
        """
        path = os.path.join(data_dir, "unlabelled.csv")
        if os.path.exists(path):
            return
        rows = [(row, domain) for domain, name in FDU_DOMAINS.items() for row in self._unlabelled(name)]
        known = {make_row(row[0], "").letters for row in read_rows(data_dir, "train")}
        tests = [*self._tests(), *(make_row(row[0], "") for row in read_rows(data_dir, "dev"))]
        kept = {}  # text -> domain: of equal texts the first
        for (row, domain), leak in zip(rows, find_leaks([row for row, _ in rows], tests)):
            if leak is None and row.letters not in known:
                kept.setdefault(row.text, domain)
        with replacing(path) as file:
            file.write("".join(f"{text}\t{domain}\n" for text, domain in kept.items()).encode("utf-8"))
        print(f"{path}: {len(kept)} texts, {len(rows) - len(kept)} left out", flush=True)

    def data(self, name):
        """The data folder of an encoder's run: dev and test of FDU-MTL. Each run has its own, because the records of a corpus are in it."""
        whole = self.reviews.folder(DEV_DRAW)
        return write_folder(os.path.join(self.folder, f"data-{name}"), **{split: read_rows(whole, split) for split in SPLITS})
