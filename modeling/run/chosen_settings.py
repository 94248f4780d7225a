"""Applies `--auto_settings`: looks at the training text or records, the model and the flags, and sets the flags that were not given."""

import math
import os

import numpy as np

from modeling.cli.flags import evaluation_flag, training_split
from modeling.cli.scripts import EPOCH_TRAINING
from modeling.run.auto_settings import Known, choose_settings, describe_settings
from modeling.run.held_out import held_out_domains
from ofrecord_util.json_reading import read_json
from ofrecord_util.writer import MANIFEST, split_folder

_FLAGS = ("seq_length", "batch_size_per_device", "num_epochs", "learning_rate", "warmup_proportion")
_MOST_TEXTS = 1000  # whose lengths are looked at


def apply_auto_settings(flags, text, task, config, tokenizer, ranks):
    """Sets the flags of a script that `--auto_settings` chooses.

    Args:
        flags: from `parse_flags`; changed.
        text: `TextFolder`.
        task: `Task`.
        config: `BertConfig`.
        tokenizer: `Tokenizer`.
        ranks: number of processes.
    Returns:
        the line for the log; None if there is neither training text nor a manifest of training records, which the script reports.
    """
    split = training_split(flags)
    stored = None if flags.resave_ofrecord else _stored(flags.data_dir, split)
    rows = stored and stored.get("num_records")
    lengths = ()
    if not isinstance(rows, int):
        stored, table = None, text.table(split)
        if table is None:
            return None
        rows, lengths = len(table.rows), _lengths(table, tokenizer, config.max_position_embeddings)
    rows = _used_rows(flags, text, task, rows, split)
    trains = flags.script in EPOCH_TRAINING
    period = evaluation_flag(flags)
    known = Known(
        rows=max(1, math.ceil(getattr(flags, "data_portion", 1.0) * rows)),
        labels=task.num_labels,
        hidden_size=config.hidden_size,
        positions=config.max_position_embeddings,
        lengths=lengths,
        stored_length=stored and stored.get("seq_length"),
        replicas=ranks * flags.gradient_accumulation_steps if trains else 1,
        frozen=trains and flags.freeze_encoder,
    )
    given = {name: getattr(flags, name) for name in _FLAGS if name in flags.given}
    if period in flags.given:
        given["evaluation_period"] = getattr(flags, period)
    chosen = choose_settings(known, given)
    for name, value in chosen.items():
        if trains or name == "seq_length":
            setattr(flags, period if name == "evaluation_period" else name, value)
    return describe_settings(known, chosen, given, period, trains)


def _used_rows(flags, text, task, rows, split):
    """The number of training rows that --train_example_num and --held_out_domains leave of `rows`."""
    rows = min(rows, flags.train_example_num or rows)
    held_out = held_out_domains(flags, task)
    found = text.read_valid(split, task) if held_out else None
    return rows if found is None else int((~np.isin(found.domain[:rows], held_out)).sum())


def _stored(data_dir, split):
    """The manifest of the training records, or None. A damaged one is a UserError."""
    path = os.path.join(split_folder(data_dir, split), MANIFEST)
    return read_json(path, "write the records again with --resave_ofrecord") if os.path.isfile(path) else None


def _lengths(table, tokenizer, longest):
    """Tokens of at most `_MOST_TEXTS` texts, spread over the rows, with special tokens."""
    rows = [table.rows[position][1] for position in np.unique(np.linspace(0, len(table.rows) - 1, _MOST_TEXTS).astype(int))]
    others = 1 + table.labelled  # columns without text
    pair = len(rows[0]) - others == 2
    complete = [cells for cells in rows if len(cells) == len(rows[0]) and len(cells) > others]
    encoded = tokenizer.encode([cells[0] for cells in complete], [cells[1] for cells in complete] if pair else None, longest)
    return encoded.input_mask.sum(axis=1).tolist()
