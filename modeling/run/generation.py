"""Generates the target texts of sources: batches of a beam search, the texts of dev and test with their scores, and their files."""

import os
import time
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from modeling.cli import interruption
from modeling.engine import parallel
from modeling.palm.beam_search import Search, beam_search
from modeling.palm.cached_decoder import CachedDecoder
from modeling.run.generations import generations_path, write_generations
from modeling.run.measures import TEXT_SCORES, TITLES
from modeling.run.text_scores import text_scores
from ofrecord_util.errors import UserError
from ofrecord_util.padded_lengths import padded_length
from ofrecord_util.tokenization import join_pieces

_CACHE_BYTES, _COPIES = 1e9, 6  # of the keys and values of a batch; arrays of their size that a step needs
_MOST_SOURCES = 32  # of a batch


class Generated(NamedTuple):
    """A generated text."""

    text: str
    score: float  # of the search
    ended: bool  # False if the text was cut at the greatest length


def search_of(flags, target_length, positions):
    """The `Search` of the flags.

    Args:
        target_length: default of --max_length, plus 1.
        positions: of the model.
    Raises:
        UserError: the lengths contradict each other, or the model has fewer positions.
    """
    longest = min(target_length - 1, positions) if flags.max_length is None else flags.max_length
    if longest > positions:
        raise UserError(f"--max_length {longest}: the model has {positions} positions")
    search = Search(flags.beam_size, flags.length_penalty, flags.min_length, longest)
    search.check()
    return search


class Generator:
    """Generates texts with the current values of some variables.

    Args:
        variables: `Variables` of a PALM.
        config: `PalmConfig`.
        tokenizer: `TextEncoder`.
        device: "cpu" or "cuda".
        search: `Search`.
        sources: sources per batch at most; None for as many as the memory of their caches allows.
    """

    def __init__(self, variables, config, tokenizer, device, search, sources=None):
        self._config, self._tokenizer, self._search = config, tokenizer, search
        row = 8 * config.dec_hidden_layers * config.hidden_size * search.max_length * _COPIES
        affordable = max(1, int(_CACHE_BYTES // (row * search.beam)))
        self._settings = variables, config, device
        self._most = min(affordable, sources or _MOST_SOURCES)
        self._decoder = None

    def text_of(self, ids):
        """The text of some tokens, a list of ids: without [CLS], [SEP], [UNK] and [PAD], and without ids that have no token."""
        left = {*self._tokenizer.special_ids, self._tokenizer.unknown_id}
        return join_pieces([self._tokenizer.tokens[number] for number in ids if number not in left and number < self._tokenizer.vocab_size])

    def __call__(self, word_rows, input_mask, expected=None):
        """Generates a text for each source.

        Args:
            word_rows, input_mask: int32 [N, S].
            expected: number of sources of this call and others with another S; None for N. The first call decides the size of the batches.
        Returns:
            list of N `Generated`.
        """
        _, cls, sep = self._tokenizer.special_ids
        if self._decoder is None:  # of this size from now on, because its graphs stay in memory
            self._decoder = CachedDecoder(
                *self._settings, min(self._most, expected or len(word_rows)), self._search.beam, self._search.max_length
            )
        size, count, found = self._decoder.sources, len(word_rows), []
        for start in tqdm(range(0, count, size), desc="generate", unit="batch", disable=None, leave=False, delay=1):
            interruption.check()
            rows = np.resize(np.arange(start, min(start + size, count)), size)  # the last batch is filled with repeated rows
            step = self._decoder.start(np.ascontiguousarray(word_rows[rows]), np.ascontiguousarray(input_mask[rows]))
            found += beam_search(step, size, cls, sep, self._search)[: count - start]
        return [Generated(self.text_of(one.tokens), one.score, one.ended) for one in found]


class SplitGenerator:
    """Generates the texts of the splits of a run, and measures them.

    Args:
        context: `GenerationContext`.
        variables: `Variables`.
        splits: dict of split -> `TargetSplit`, or None for a split to leave out.
    """

    def __init__(self, context, variables, splits):
        flags, config = context.flags, context.config
        count = flags.generate_example_num
        self._context = context
        self._splits = {split: rows.first(count) for split, rows in splits.items() if rows is not None and count != 0}
        search = search_of(flags, flags.target_length, config.max_position_embeddings)
        self._generator = Generator(variables, config, context.tokenizer, context.engine.device, search)

    def generate(self, split):
        """The texts of a split and their scores: (list of `Generated`, list of the references, dict of `measures.TEXT_SCORES` -> value)."""
        rows = self._splits[split]
        length = padded_length(rows.samples)
        found = self._generator(rows.samples.word_rows[:, :length], rows.samples.input_mask[:, :length])
        ends = (rows.target_lengths - 1).tolist()  # without [SEP]
        references = [self._generator.text_of(ids[1:end].tolist()) for ids, end in zip(rows.targets, ends)]
        return found, references, text_scores([one.text for one in found], references, self._context.flags.score_units)

    def report(self):
        """Generates the texts of all splits; writes generations_SPLIT.tsv and a line of metrics for each."""
        context = self._context
        if parallel.size() > 1:
            context.log("no texts are generated: several processes train, one generates; use tools/generate.py")
            return
        for split, rows in self._splits.items():
            started = time.perf_counter()
            found, references, scores = self.generate(split)
            seconds = time.perf_counter() - started
            sources = [self._source(rows, row) for row in range(len(rows))]
            path = generations_path(context.folder.path, split)
            write_generations(path, sources, references, [(one.text, one.score) for one in found])
            ended = sum(one.ended for one in found)
            context.folder.metrics.add("generation", split=split, rows=len(found), ended=ended, seconds=round(seconds, 3), **scores)
            text = ", ".join(f"{TITLES[name]} {scores[name]:.4f}" for name in TEXT_SCORES)
            context.log(f"{split}: {text}; {len(found)} texts, {len(found) - ended} cut at the greatest length: {os.path.basename(path)}")

    def _source(self, rows, row):
        if rows.texts is not None:
            return rows.texts[row][0]
        return self._generator.text_of(rows.samples.word_rows[row, : rows.samples.lengths[row]].tolist())
