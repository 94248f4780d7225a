"""Writes the records of a corpus, or reads their batches of one epoch. It does not import OneFlow, so that its memory is that of the data.
Called by benchmarks/bench_corpus.py with JSON as argument:

    part            "write" or "read"
    data_dir, text  folder of the records; file of the corpus
    vocabulary      file
    length, batch, window
    memory_limit    GB of address space, or null

It prints {"peak_bytes": its peak memory}. What the system says of a process that has ended includes the memory of the one that started it.
"""

if not __package__:
    import _root  # noqa: F401

import json
import resource
import sys

from ofrecord_util.corpus import Corpus, write_corpus
from ofrecord_util.corpus_batches import iterate_corpus
from ofrecord_util.corpus_kinds import KEEP, LINE
from ofrecord_util.corpus_text import CorpusText
from ofrecord_util.masking import Masking
from ofrecord_util.tokenization import Tokenizer


def main():
    job = json.loads(sys.argv[1])
    if job["memory_limit"] is not None:
        resource.setrlimit(resource.RLIMIT_AS, (int(job["memory_limit"] * 1e9),) * 2)
    tokenizer = Tokenizer(job["vocabulary"])
    if job["part"] == "write":
        write_corpus(job["data_dir"], None, CorpusText([job["text"]], None, {}, KEEP), tokenizer, job["length"], LINE)
    else:
        corpus, masking = Corpus(job["data_dir"]), Masking(tokenizer.tokens)
        for _ in iterate_corpus(corpus, masking, job["batch"], (job["length"],), 1, 1, job["window"]):
            pass
    with open("/proc/self/status", encoding="ascii") as file:
        peak = next(line for line in file if line.startswith("VmHWM:"))
    print(json.dumps({"peak_bytes": int(peak.split()[1]) * 1024}))


if __name__ == "__main__":
    main()
