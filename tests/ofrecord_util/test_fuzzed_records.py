"""OFRecord files that are changed at random: records or a UserError, nothing else."""

import json

import ofrecord_samples as samples
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ofrecord_samples import both

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
    database=None,
)


@given(position=st.integers(0, 10**6), change=st.integers(1, 255), cut=st.integers(0, 40), more=st.binary(max_size=20))
@FUZZ
def test_whatever_is_changed_the_manifest_tells(tmp_path, position, change, cut, more):
    path = samples.write(tmp_path, samples.arrays(4, 5), part_num=2)[position % 2]
    with open(path, "rb") as file:
        content = bytearray(file.read())
    content[position % len(content)] ^= change
    with open(path, "wb") as file:
        file.write(content[: len(content) - cut] + more)
    message = both(tmp_path, part_num=2)
    assert isinstance(message, str)
    assert message.startswith(path)
    assert "--resave_ofrecord" in message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "records", "bytes", "sha256"]), inner),
    max_leaves=5,
)


@pytest.mark.slow
@given(key=st.sampled_from(["format", "parts", "text_digest"]), value=_JSON)
@settings(FUZZ, max_examples=30)
def test_fuzzed_manifests(tmp_path, key, value):
    """Whatever JSON stands in a field that is used: records or a UserError, nothing else."""
    samples.write(tmp_path, samples.arrays(2, 3))
    path = tmp_path / "ofrecord" / "train" / "manifest.json"
    path.write_text(json.dumps(dict(json.loads(path.read_text()), **{key: value})))
    both(tmp_path)


@given(data=st.data())
@FUZZ
def test_fuzzed_files(tmp_path, data):
    """Cut, spliced and changed files: the fast path and protobuf agree on records or message, and nothing else is raised."""
    values = samples.arrays(3, 3, seed=data.draw(st.integers(0, 3)))
    content = bytearray(samples.framed([samples.record_bytes(values, row) for row in range(3)]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        action = data.draw(st.sampled_from(["set", "cut", "insert", "double", "value"]))
        if action == "cut":
            del content[at : at + data.draw(st.integers(1, 20))]
        elif action == "insert":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=12))
        elif action == "double":
            content[at:at] = content[at : at + data.draw(st.integers(1, 40))]
        elif at < len(content):
            content[at] = data.draw(st.integers(0, 255))
    samples.put(tmp_path, bytes(content))
    both(tmp_path)


@given(body=st.binary(min_size=1, max_size=60))
@FUZZ
def test_fuzzed_bodies(tmp_path, body):
    samples.put(tmp_path, samples.framed([body, body]))
    assert isinstance(both(tmp_path), str)


@given(seed=st.integers(0, 1000), position=st.integers(0, 5000), value=st.integers(0, 255))
@FUZZ
def test_fuzzed_bytes_within_the_framing(tmp_path, seed, position, value):
    """One changed byte in a record whose length is right."""
    values = samples.arrays(4, 5, seed=seed, largest=2**21)
    bodies = [bytearray(samples.record_bytes(values, row)) for row in range(4)]
    bodies[position % 4][position % len(bodies[position % 4])] = value
    samples.put(tmp_path, samples.framed(bodies))
    both(tmp_path)
