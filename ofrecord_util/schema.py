"""The features of a record: names, kinds and shapes. No other module repeats them.

A file is a sequence of records, each an 8-byte little-endian length and a serialised
`oneflow.core.record.record_pb2.OFRecord` (a map from feature name to a typed list). OneFlow's `nn.OFRecordReader` and
`nn.OFRecordRawDecoder` read the same files.
"""

import collections
import functools
from typing import Any, Optional, Tuple, Type

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from ofrecord_util.errors import UserError
from ofrecord_util.label_kinds import CLASSIFICATION, LABEL_KINDS
from ofrecord_util.text_files import UNLABELLED

Feature = collections.namedtuple("Feature", "name key kind dtype per_token older_key count", defaults=(None, None))
Feature.__doc__ = """One feature of a record.

name: of its array. key: of the feature in the record. kind: the field of `record_pb2.Feature` that holds it. dtype: NumPy type of
its array. per_token: True for a list of seq_length values. older_key: the key that the earlier implementation used, or None. count: number
of values of a list that is not per token, whose array is [N, count]; None for a list of one, whose array is [N].
"""

FEATURES = (
    Feature("input_ids", "input_ids", "int32_list", np.int32, True, None),
    Feature("input_mask", "input_mask", "int32_list", np.int32, True, "attention_masks"),
    Feature("segment_ids", "segment_ids", "int32_list", np.int32, True, "token_type_ids"),
    Feature("domain", "domain", "int32_list", np.int32, False, "tasks"),
    Feature("label", "label", "int32_list", np.int32, False, "labels"),
    Feature("idxs", "idxs", "int32_list", np.int32, False, None),
    Feature("sample_weights", "weights", "float_list", np.float32, False, None),
)
FEATURE_NAMES = tuple(feature.name for feature in FEATURES)

TAGS, ANSWERS = "tags", "answers"  # forms of records that have targets besides the features above, see `record_forms.py`
# Their values are not negative, because a negative one takes 10 bytes: words and tags count from 1, and 0 is none
TARGETS = {
    TAGS: (
        Feature("words", "words", "int32_list", np.int32, True),
        Feature("tags", "tags", "int32_list", np.int32, True),
    ),
    ANSWERS: (
        Feature("question", "question", "int32_list", np.int32, False),
        Feature("first", "context_first", "int32_list", np.int32, False),
        Feature("skipped", "context_skipped", "int32_list", np.int32, False),
        Feature("count", "context_count", "int32_list", np.int32, False),
        Feature("start", "answer_start", "int32_list", np.int32, False),
        Feature("end", "answer_end", "int32_list", np.int32, False),
        Feature("left", "token_start", "int32_list", np.int32, True),
        Feature("right", "token_end", "int32_list", np.int32, True),
    ),
}


def features_of(task: Any, form: Any = None) -> Tuple[Feature, ...]:
    """The features of the records of a task: `FEATURES`, in which the label has the form of the task's type, and those of the targets.

    Args:
        task: dict of `Task.to_dict`, as a manifest has it, or None: then it is that of classification.
        form: TAGS, ANSWERS, or any other value for records without targets of their own.

    Raises:
        UserError: the task has an unknown type, or no list of labels.
    """
    task = task if isinstance(task, dict) else {}
    task_type, labels = task.get("task_type", CLASSIFICATION), task.get("labels", [])
    targets = TARGETS.get(form, ()) if isinstance(form, str) else ()
    if task_type == CLASSIFICATION:
        return FEATURES + targets
    if task_type not in LABEL_KINDS or not isinstance(labels, list) or not labels:
        raise UserError(f"task description: task_type {task_type!r:.40} with the labels {labels!r:.80}, which a task cannot have")
    kind = LABEL_KINDS[task_type]
    label = {"kind": kind.record_kind, "dtype": kind.dtype, "count": kind.count(len(labels)), "older_key": None}
    return tuple(feature._replace(**label) if feature.name == "label" else feature for feature in FEATURES) + targets


LENGTH_BYTES = 8  # each record's length precedes it: signed, little-endian


_LISTS = {
    "bytes_list": "BytesList",
    "float_list": "FloatList",
    "double_list": "DoubleList",
    "int32_list": "Int32List",
    "int64_list": "Int64List",
}
_POOL = descriptor_pool.DescriptorPool()  # a private one: OneFlow registers messages of the same names in the default pool


@functools.lru_cache(maxsize=None)
def record_class() -> Type[Message]:
    """The protobuf class `OFRecord`, built from the description in OneFlow's `oneflow/core/record/record.proto`, without OneFlow."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="oneflow/core/record/record.proto", package="oneflow")

    def add(message: Any, name: str, number: int, kind: int, type_name: Optional[str] = None, repeated: bool = False, **more: Any) -> None:
        label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        message.field.add(name=name, number=number, type=kind, type_name=type_name, label=label, **more)

    values = (field.TYPE_BYTES, field.TYPE_FLOAT, field.TYPE_DOUBLE, field.TYPE_INT32, field.TYPE_INT64)
    for name, kind in zip(_LISTS.values(), values):
        packed = None if kind == field.TYPE_BYTES else descriptor_pb2.FieldOptions(packed=True)
        add(file.message_type.add(name=name), "value", 1, kind, repeated=True, options=packed)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, message) in enumerate(_LISTS.items(), 1):
        add(feature, name, number, field.TYPE_MESSAGE, ".oneflow." + message, oneof_index=0)
    record = file.message_type.add(name="OFRecord")
    add(record, "feature", 1, field.TYPE_MESSAGE, ".oneflow.OFRecord.FeatureEntry", repeated=True)
    entry = record.nested_type.add(name="FeatureEntry", options=descriptor_pb2.MessageOptions(map_entry=True))
    add(entry, "key", 1, field.TYPE_STRING)
    add(entry, "value", 2, field.TYPE_MESSAGE, ".oneflow.Feature")
    _POOL.Add(file)
    return message_factory.MessageFactory(_POOL).GetPrototype(_POOL.FindMessageTypeByName("oneflow.OFRecord"))


@functools.lru_cache(maxsize=None)
def entries_class() -> Type[Message]:
    """A protobuf class that parses an `OFRecord` as a list of entries, whose keys are bytes.

    libprotobuf prints a line of its own on standard error if the key of a map is not UTF-8. The bytes of a map and of such a list are the
    same. A later entry replaces an earlier one with its key.
    """
    record_class()  # adds the message Feature to the pool
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="entries.proto", package="oneflow", dependency=["oneflow/core/record/record.proto"])
    entry, record = file.message_type.add(name="Entry"), file.message_type.add(name="Entries")
    entry.field.add(name="key", number=1, type=field.TYPE_BYTES, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_MESSAGE, type_name=".oneflow.Feature", label=field.LABEL_OPTIONAL)
    record.field.add(name="feature", number=1, type=field.TYPE_MESSAGE, type_name=".oneflow.Entry", label=field.LABEL_REPEATED)
    _POOL.Add(file)
    return message_factory.MessageFactory(_POOL).GetPrototype(_POOL.FindMessageTypeByName("oneflow.Entries"))


def default_prefix(split: str) -> str:
    """`SPLIT.of_record-`: OneFlow's part names are this and "0", "1", … (`part_name_suffix_length=-1`)."""
    return split + ".of_record-"


def split_flag(split: str, suffix: str) -> str:
    """The flag of a split, for messages: `--train_data_prefix`, `--dev_data_prefix (or
    --eval_data_prefix)`, …"""
    if split == "dev":
        return f"--dev_{suffix} (or --eval_{suffix})"
    return "--{}_{}".format({"test": "eval", UNLABELLED: "train"}.get(split, split), suffix)
