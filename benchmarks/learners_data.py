"""The data folders of benchmarks/learners.py. Each is written once, as a whole; no training or dev row reveals a test row.

Draws are made by tools/make_kshot.py, which leaves out each candidate that equals, contains or is contained in a test row.
"""

import collections
import os
import threading

from ofrecord_util.files import replacing_folder
from tools import make_kshot
from tools.kshot_leaks import Substrings

SPLITS = ("train", "dev", "test")
GIVEN_DRAW = "16-42"  # the public draw of DATA_DIR; other draws are made with their name as the seed
FEW_SHOT = ("SST-2", "MR", "CR")  # domains
DEV_ROWS = 16  # dev rows per class and domain of FDU-MTL: an evaluation on all would take longer than the steps between two
ALL_ROWS = "all"  # the draw of FDU-MTL with all rows


def read_rows(folder, split):
    """Rows (text, domain, label) of FOLDER/SPLIT.csv."""
    with open(os.path.join(folder, split + ".csv"), encoding="utf-8", newline="\n") as file:
        return [tuple(line.rstrip("\n").split("\t")) for line in file]


def write_folder(folder, **splits):
    """Writes SPLIT.csv for each split, a list of rows, unless the folder exists. Returns the folder."""
    if not os.path.isdir(folder):
        with replacing_folder(folder) as new:
            for split, rows in splits.items():
                with open(os.path.join(new, split + ".csv"), "w", encoding="utf-8", newline="\n") as file:
                    file.writelines("\t".join(row) + "\n" for row in rows)
    return folder


def of_domains(rows, *domains):
    """The rows of some domains."""
    return [row for row in rows if row[1] in domains]


def per_class(rows, number):
    """The first rows of each domain and class, `number` of each."""
    counted, kept = collections.Counter(), []
    for row in rows:
        counted[row[1:]] += 1
        if counted[row[1:]] <= number:
            kept.append(row)
    return kept


def whole_sentences(texts):
    """The texts that are no part of another one, each once. SST-2's training file has the phrases of its sentences beside them; the
    public draw, and the test rows, are sentences."""
    texts = list(dict.fromkeys(texts))
    search, parts = Substrings(texts), set()
    for text in texts:
        parts.update(part for part in search.inside(text) if part != text)
    return [text for text in texts if text not in parts]


class Draws:
    """Data folders by draw.

    Args:
        data_dir: folder of the raw data.
        output_dir: folder for the folders.
    """

    domains = ()

    def __init__(self, data_dir, output_dir):
        self.data_dir, self.output = os.path.abspath(data_dir), os.path.abspath(output_dir)
        self.lock = threading.RLock()  # held while a folder is made: two jobs may need it

    def _source(self, *names):
        return os.path.join(self.data_dir, *names)

    def _made(self, name, mode, *words):
        """Output of tools/make_kshot.py, made once."""
        folder = os.path.join(self.output, name)
        if not os.path.isdir(folder):
            make_kshot.main([mode, "--output_dir", folder, *words])
        return folder

    def splits(self, draw):
        """Rows by split."""
        raise NotImplementedError

    def folder(self, draw):
        """The folder of a draw with all domains."""
        path = os.path.join(self.output, draw)
        with self.lock:
            return path if os.path.isdir(path) else write_folder(path, **self.splits(draw))

    def domain_folder(self, draw, domain):
        """The folder of a draw with one domain."""
        path, whole = os.path.join(self.output, "single", draw, domain), self.folder(draw)
        with self.lock:
            return write_folder(path, **{split: of_domains(read_rows(whole, split), domain) for split in SPLITS})


class FewShotDraws(Draws):
    """Draws of SST-2, MR and CR with K = 16 rows per class for train and for dev. The test rows are those of k-shot-single in each draw."""

    domains = FEW_SHOT

    def tests(self):
        """The test rows of all domains."""
        return [row for domain in self.domains for row in read_rows(self._source("k-shot-single", domain, GIVEN_DRAW), "test")]

    def splits(self, draw):
        cross = self._source("k-shot-cross", "g1", GIVEN_DRAW)
        if draw != GIVEN_DRAW:
            cross = os.path.join(self._draw(draw), "k-shot-cross", "g1", f"16-{draw}")
        return {"train": read_rows(cross, "train"), "dev": read_rows(cross, "dev"), "test": self.tests()}

    def _draw(self, seed):
        raw = os.path.join(self.output, "raw")
        if not os.path.isdir(raw):
            with open(self._source("raw", "SST-2", "train.tsv"), encoding="utf-8", newline="\n") as file:
                labels = dict(line.rstrip("\n").split("\t") for line in list(file)[1:])
            labels = {text.strip(): label for text, label in labels.items()}
            sentences = [(text, labels[text]) for text in whole_sentences(labels)]
            tests = {domain: [(text, label) for text, _, label in of_domains(self.tests(), domain)] for domain in self.domains}
            write_folder(raw, sentences=sentences, **tests)
        return self._made(
            f"made-{seed}", "kshot", "--group", "g1", "--k", "16", "--seeds", seed,
            "--source", f"SST-2=tsv:{raw}/sentences.csv",
            "MR=lines:1={0}.pos,0={0}.neg".format(self._source("raw", "MR", "rt-polarity")),
            "CR=lines:1={0}.pos,0={0}.neg".format(self._source("raw", "CR", "custrev")),
            "--test_source", *(f"{domain}=tsv:{raw}/{domain}.csv" for domain in self.domains),
        )  # fmt: skip


class ReviewDraws(Draws):
    """Draws of the domains of FDU-MTL, "K-SEED" with K rows per class and domain or "all" with the published split."""

    def __init__(self, data_dir, output_dir):
        super().__init__(data_dir, output_dir)
        ending = ".task.train"
        names = sorted(os.listdir(self._source("fdu-mtl")))
        self.domains = tuple(name[: -len(ending)] for name in names if name.endswith(ending))

    def _sources(self):
        for flag, split in (("--source", "train"), ("--test_source", "test")):
            yield flag
            yield from ("{}=fdu:{}".format(name, self._source("fdu-mtl", f"{name}.task.{split}")) for name in self.domains)

    def made(self, *names):
        """Output of tools/make_kshot.py for draws "K-SEED" of one K. Returns the folder with `k-shot-cross` and `k-shot-single`."""
        rows = names[0].partition("-")[0]
        seeds = [name.partition("-")[2] for name in names]
        title = "made-" + "_".join([rows, *seeds])
        return self._made(title, "kshot", "--group", "fdu", "--k", rows, "--seeds", *seeds, *self._sources())

    def splits(self, draw):
        if draw == ALL_ROWS:
            cross = os.path.join(self._made("made-all", "splits", "--group", "fdu", *self._sources()), "cross", "fdu")
            return {**{split: read_rows(cross, split) for split in SPLITS}, "dev": per_class(read_rows(cross, "dev"), DEV_ROWS)}
        made = self.made(draw)
        cross = os.path.join(made, "k-shot-cross", "fdu", draw)
        tests = [read_rows(os.path.join(made, "k-shot-single", domain, draw), "test") for domain in self.domains]
        dev = per_class(read_rows(cross, "dev"), DEV_ROWS)
        return {"train": read_rows(cross, "train"), "dev": dev, "test": [row for rows in tests for row in rows]}
