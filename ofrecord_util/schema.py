"""The features of a record: their names, kinds and shapes, in the one place that knows them.

A file is a sequence of records, each an 8-byte little-endian length and a serialised
`oneflow.core.record.record_pb2.OFRecord` (a map from feature name to a typed list). OneFlow's `nn.OFRecordReader` and
`nn.OFRecordRawDecoder` read the same files.
"""

import collections

import numpy as np

Feature = collections.namedtuple("Feature", "name key kind dtype per_token older_key")
Feature.__doc__ = """One feature of a record.

name: of its array. key: of the feature in the record. kind: the field of `record_pb2.Feature` that holds it. dtype: NumPy type of
its array. per_token: True for a list of seq_length values, False for a list of one. older_key: the key that the earlier
implementation used, or None.
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

LENGTH_BYTES = 8  # each record's length precedes it: signed, little-endian


def record_class():
    """The protobuf class `OFRecord`. Imports OneFlow, hence only where a record is really parsed or built."""
    from modeling.engine.runtime import flow  # noqa: F401, I001  first: loads the libraries that OneFlow needs

    from oneflow.core.record import record_pb2

    return record_pb2.OFRecord


def default_prefix(split):
    """`SPLIT.of_record-`: OneFlow's part names are this and "0", "1", … (`part_name_suffix_length=-1`)."""
    return split + ".of_record-"


def split_flag(split, suffix):
    """The flag that speaks of a split, for messages: `--train_data_prefix`, `--dev_data_prefix (or
    --eval_data_prefix)`, …"""
    if split == "dev":
        return f"--dev_{suffix} (or --eval_{suffix})"
    return "--{}_{}".format("eval" if split == "test" else split, suffix)
