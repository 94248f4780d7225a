"""A training on a corpus (masked language modelling): the corpus of a run, the training in epochs, and the evaluation on dev and test."""

import math

import numpy as np
from tqdm import tqdm

from modeling.bert.dropout import DropoutPlan
from modeling.bert.names import TOKEN_BIAS
from modeling.bert.variables import token_head_shapes
from modeling.cli import interruption
from modeling.engine import parallel
from modeling.run.bucketing import train_batch_size
from modeling.run.child_tuning import ChildTuning
from modeling.run.evaluation import TEXT, Evaluation, predict
from modeling.run.held_out import domains_of, measured_parts, split_of
from modeling.run.measures import PERPLEXITY
from modeling.run.model_loading import shapes_without_pooler
from modeling.run.optimizer import create_optimizer, plan_schedule
from modeling.run.training_run import TrainingRun
from ofrecord_util.corpus import CORPUS, Corpus, is_written, write_corpus
from ofrecord_util.corpus_batches import iterate_corpus, longest_rows
from ofrecord_util.corpus_kinds import LINE, PAIRS, SENTENCES
from ofrecord_util.corpus_text import CorpusText, HeldOutRows, find_files
from ofrecord_util.errors import UserError
from ofrecord_util.masking import Masking
from ofrecord_util.seeds import fixed_mask_stream
from ofrecord_util.summary import describe_corpus
from ofrecord_util.tasks import HELD_OUT_KEY

_MOST_LOOKED_AT = 500  # steps whose rows decide to which lengths batches are padded
# Numbers per masked token and word of the vocabulary that a graph holds: scores and probabilities; in training also their gradients
_PREDICT_SCORES, _TRAIN_SCORES = 3, 5


def language_shapes(config, snapshot):
    """dict of name -> shape of the variables. The pooler is not trained, so it is there only if the snapshot has it."""
    return {**shapes_without_pooler(config, snapshot), **token_head_shapes(config)}


def check_token_head(context) -> None:
    """Raises a UserError if a run without training has no head of language modelling."""
    if context.snapshot is None:
        raise UserError("--do_train false: --model_load_dir is needed (the snapshot to evaluate)")
    # which variables the head has depends on its kind: a plain one has the bias alone
    missing = set(token_head_shapes(context.config)) - set(context.snapshot.sizes)
    if missing:
        named = TOKEN_BIAS if TOKEN_BIAS in missing else sorted(missing)[0]
        raise UserError(f"--do_train false: {context.snapshot.path} has no head of language modelling ({named})")


def plan_masking(context, rule=Masking):
    """The `Masking` of a run's flags, or an object of another class with its arguments.

    Raises:
        UserError: the vocabulary has no [MASK], or more tokens than the model.
    """
    flags, tokenizer = context.flags, context.tokenizer
    if tokenizer.vocab_size > context.config.vocab_size:
        raise UserError(
            f"{tokenizer.vocab_file}: has {tokenizer.vocab_size} tokens, but the model has {context.config.vocab_size} word embeddings: "
            "give the model's own --vocab_file"
        )
    masked = flags.mask_probability, flags.max_predictions_per_seq, getattr(flags, "whole_word_masking", False)
    return rule(tokenizer.tokens, *masked, source=tokenizer.vocab_file)


def per_row(masking, config, further=None):
    """Numbers that the head needs for each row of a `Graph`, as a function of the graph: for `plan_memory`.

    Args:
        further: function of a length -> tokens of a row of a train graph that are predicted beside masked ones; None for 0.
    """

    def numbers(graph):
        places = masking.places(graph.length) + (further(graph.length) if further and graph.trains else 0)
        return places * config.vocab_size * (_TRAIN_SCORES if graph.trains else _PREDICT_SCORES)

    return numbers


# ------------------------------------------------------------------------------------------------------------------- corpus


def open_corpus(context):
    """The `Corpus` of a run. With --resave_ofrecord, or if there is none, its records are first written from the text.

    Raises:
        UserError: the text is missing or damaged, has texts of dev or test, or the records are stale.
    """
    flags, tokenizer, packing = context.flags, context.tokenizer, _packing(context.flags)
    text = _find_text(context)
    with parallel.main_first():
        if parallel.is_main() and (flags.resave_ofrecord or not is_written(flags.data_dir)):
            text.check()
            manifest = _write(context, text, packing)
            context.log(
                f"corpus: {manifest['texts']} texts of {', '.join(text.names)} written as OFRecord in {len(manifest['parts'])} parts"
            )
        corpus = Corpus(flags.data_dir)
    wanted = {"vocab_digest": tokenizer.digest, "do_lower_case": tokenizer.do_lower_case, "seq_length": flags.seq_length}
    changed = corpus.differences({**wanted, **text.digests(), HELD_OUT_KEY: text.held_out, "packing": packing})
    if flags.corpus_data_part_num not in (None, len(corpus.manifest["parts"])):
        changed.append(f"--corpus_data_part_num was {len(corpus.manifest['parts'])} and is {flags.corpus_data_part_num}")
    if changed:
        raise UserError(f"{corpus.path}: the records are stale: {'; '.join(changed)}; write them again with --resave_ofrecord")
    _describe(context, corpus, text)
    return corpus


def _packing(flags):
    """What the records of a corpus hold, as its manifest says it. Halves of texts need a record for each text."""
    packing = getattr(flags, "packing", PAIRS if getattr(flags, "paired_lines", False) else LINE)
    if not getattr(flags, "structural", False):
        return packing
    if packing != LINE:
        raise UserError(f"--packing {packing}: with --structural a record has sentences of one text: leave the flag out")
    return SENTENCES[flags.document_end]


def _write(context, text, packing):
    """Writes the records and shows the progress. Returns their manifest."""
    flags = context.flags
    with tqdm(desc="corpus", unit="text", disable=None, leave=False, delay=1) as bar:

        def between():
            bar.update(text.count - bar.n)
            if parallel.size() == 1:  # a rank that stops alone would leave the others waiting
                interruption.check()

        return write_corpus(flags.data_dir, flags.corpus_data_part_num, text, context.tokenizer, flags.seq_length, packing, between)


def _find_text(context):
    """The `CorpusText` of the flags."""
    flags, splits = context.flags, context.splits
    files = find_files(flags.corpus_file or ())
    uses_task = flags.use_task_text if flags.use_task_text is not None else not files
    if not files and not uses_task:
        raise UserError("--use_task_text false: the corpus has no text; give --corpus_file")
    paired = getattr(flags, "paired_lines", False)
    if paired and not files:
        raise UserError("--paired_lines: there is no --corpus_file whose lines have two texts: leave the flag out")
    rows, left_out = (splits.text("train", needed=True) if uses_task else None), None
    if splits.held_out:
        left_out = _held_out_rows(context, rows)
    found = {split: splits.text(split) for split in ("dev", "test")}
    evaluation = {split: rows for split, rows in found.items() if rows is not None}
    if "dev" not in evaluation:
        context.log("corpus: there is no valid text of dev, so its texts cannot be searched in the corpus")
    return CorpusText(files, rows, evaluation, flags.evaluation_text, paired, left_out)


def _held_out_rows(context, rows):
    """The `HeldOutRows` of the training split; None without its text, whose rows alone have a domain."""
    splits, task = context.splits, context.task
    if rows is None:
        context.log(
            "--held_out_domains has no effect on the corpus without --use_task_text: a line of --corpus_file has no domain; it divides dev "
            "and test"
        )
        return None
    used = splits.trained_rows(rows.domain)
    return HeldOutRows([task.domains[domain] for domain in splits.held_out], frozenset(range(len(rows))) - frozenset(used.tolist()))


def _describe(context, corpus, text):
    """Logs what the corpus has, and stores it for flags.json and the run's identity."""
    manifest = corpus.manifest
    for line in describe_corpus(manifest, corpus.facts, text.names, context.flags.evaluation_text):
        context.log(line)
    about = {"rows": len(corpus), "text_file": ", ".join(manifest["text_files"]), "text_digest": manifest["text_digest"]}
    context.splits.facts[CORPUS] = dict(
        about, tokens=manifest["tokens"], evaluation_texts=manifest["evaluation_texts"], truncated=manifest.get("truncated")
    )
    context.splits.digests["corpus's digest"] = corpus.digest


# ----------------------------------------------------------------------------------------------------------------- training


class _Lengths:
    """What the choice of padded lengths needs to know of a corpus."""

    def __init__(self, corpus, added):
        self.seq_length, self.lengths = corpus.seq_length, np.array([corpus.manifest["longest"] + added])


class LanguageTraining(TrainingRun):
    """One training on a corpus.

    Args:
        context: `RunContext`.
        variables: the trained `Variables`.
        corpus: `Corpus`.
        masking: `Masking`.
    Attributes:
        settings: keyword arguments of `global_function` for the train function.
        dropout: `DropoutPlan`.
        layout: `TrainingBatches`.
        added_tokens: tokens that a row of a batch may have more than its record.
        further_places: as `further` of `per_row`.
        word_uses: see `resources.Model`: as embeddings and as output weights.
        generator: `BertConfig` of another encoder in the train graph, see `DropoutPlan`; None without one.
    Raises:
        UserError: the run that --resume continues had other flags or data, or the run does not fit into memory.
    """

    added_tokens, further_places, word_uses, generator = 0, None, 2, None

    def __init__(self, context, variables, corpus, masking):
        flags, engine, batch_size = context.flags, context.engine, train_batch_size(context.flags)
        self._corpus, self._masking = corpus, masking
        super().__init__(context, variables, plan_schedule(flags, len(corpus), batch_size), len(corpus), batch_size, {})
        steps = self.schedule.total_steps
        needed = longest_rows(corpus, batch_size, flags.seed, flags.shuffle_window, min(steps, _MOST_LOOKED_AT)) + self.added_tokens
        lengths = _Lengths(corpus, self.added_tokens)
        memory = {"per_row": self._per_row(), "others": self._other_models(), "word_uses": self.word_uses}
        self.layout = self._choose_layout(lengths, batch_size, needed=np.resize(needed, steps), **memory)
        self.child_tuning = ChildTuning(context, variables)
        options = flags.weight_decay_rate, flags.adam_bias_correction, self.child_tuning.clip_norm
        optimizer, rates = create_optimizer(variables, self.schedule, *options)
        self.settings = {"type": "train", "variables": variables, "optimizer": optimizer, "schedule": rates, "engine": engine}
        self.settings.update(mixed_precision=flags.use_fp16, masks=self.child_tuning.masks, parts=self.layout.parts)
        parts = self.layout.parts if engine.sums_gradients else 1
        self.dropout = DropoutPlan(context.config, flags.seed, engine.device, parts, generator=self.generator)

    def _per_row(self):
        """See `plan_memory`."""
        return per_row(self._masking, self._context.config, self.further_places)

    def _other_models(self):
        """`Model`s in the train graph beside the trained one."""
        return ()

    def further_metrics(self, row):
        """The perplexity, from the mean loss."""
        return {PERPLEXITY: math.exp(min(row["loss"], 700.0))}

    def samples_in(self, step):
        """Rows of a step (from 1). The last batch of a run may have fewer than the others."""
        return min(self.batch_size, self._context.flags.num_epochs * self.num_samples - (step - 1) * self.batch_size)

    def epochs_until(self, step):
        """Passes over the corpus until the end of a step (from 1)."""
        return min(super().epochs_until(step), self._context.flags.num_epochs)

    def batches(self):
        """The run's batches after `start_step`, with their dropout masks."""
        return self._with_random_numbers(self._masked(self._context.flags.num_epochs, self.start_step), self.dropout, self.start_step)

    def fisher_batches(self):
        """The batches of one epoch, see `TrainingRun`."""
        return self._with_random_numbers(self._masked(1, 0), self.dropout, self.fisher_step)

    def _masked(self, epochs, start_step):
        flags = self._context.flags
        run = self._corpus, self._masking, self.batch_size, self.layout.lengths, epochs, flags.seed, flags.shuffle_window
        return iterate_corpus(*run, start_step)


# --------------------------------------------------------------------------------------------------------------- evaluation


class LanguageEvaluator:
    """Measures the masked tokens of a split. The masks of a row are always the same, whatever the run and its seed.

    Args:
        context: `RunContext`.
        job: a predict `GlobalFunction` that returns `objectives.masked_lm.predict_masked`, [B, 3].
        splits: dict of split -> `Samples` with the ids of the vocabulary, or None for a split to leave out.
        batch_sizes: dict of split -> samples per batch from the flags.
        masking: `Masking`.
        corpus: `Corpus` of a run that evaluates dev periodically; None if each split is measured once.
    Attributes:
        splits: dict of split -> `Samples`, with names such as "dev_held_out" for the rows of held-out domains.
        measure: the key of the further value of an `Evaluation`.
    Raises:
        UserError: dev is to select a snapshot, and has no row of a domain that is not held out; or no token of a split can be masked.
    """

    measure = PERPLEXITY

    def __init__(self, context, job, splits, batch_sizes, masking, corpus=None):
        self._context, self._job, self._masking = context, job, masking
        self.splits = measured_parts(context, splits, corpus is not None)
        for name, samples in self.splits.items():
            self._check(name, samples)
        self._batches = {
            name: context.bucketing.evaluation(samples, batch_sizes[split_of(name)], corpus if name == "dev" else None, all_tokens=True)
            for name, samples in self.splits.items()
        }

    def _check(self, name, samples):
        """Raises a UserError if no token of a part can be masked: a run that has trained would find it out at its end."""
        rows = zip(samples.word_rows, samples.lengths.tolist(), samples.idxs.tolist())
        if not any(len(self._masking.row(ids[:length], fixed_mask_stream(row))[0]) for ids, length, row in rows):
            place = self._context.splits.source(split_of(name))
            which = domains_of(self._context, name)
            raise UserError(f"{place}: no token{which} can be masked, so there is nothing to measure; give longer texts")

    def _inputs(self, batch):
        """The arrays of the predict function for a batch with the names of TEXT, and `idxs`."""
        streams = [fixed_mask_stream(row) for row in batch["idxs"].tolist()]
        masked = self._masking.batch(batch["word_rows"], batch["input_mask"].sum(axis=1), streams)
        return {**{name: batch[name] for name in TEXT}, **masked}

    def _measures(self, sums):
        """The values of some rows from the outputs of the predict function, float64 [N, outputs]."""
        return _measures(sums)

    def __call__(self, split="dev"):
        """The `Evaluation` of a split. Its rows are masked tokens: `total` is their number."""
        samples, task = self.splits[split], self._context.task
        sums = predict(lambda batch: self._job(self._inputs(batch)), samples, self._batches[split], (*TEXT, "idxs")).astype(np.float64)
        by_domain = {}
        for domain, name in enumerate(task.domains):
            here = samples.domain == domain
            if sums[here, 2].any():
                by_domain[name] = self._measures(sums[here])
        whole = self._measures(sums)
        return Evaluation(whole["correct"], whole["total"], whole["cross_entropy"], by_domain, {self.measure: whole[self.measure]})


def _measures(sums):
    """The values of some rows: dict of "accuracy", "correct", "total", "cross_entropy" and PERPLEXITY.

    Args:
        sums: float64 [N, 3], as the predict function returns them.
    """
    loss, hits, total = sums.sum(axis=0).tolist()
    mean = loss / total
    return {
        "accuracy": round(hits) / round(total),
        "correct": round(hits),
        "total": round(total),
        "cross_entropy": mean,
        PERPLEXITY: math.exp(min(mean, 700.0)),
    }
