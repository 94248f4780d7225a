r"""Converts a BERT between the snapshots of this project and other formats.

    python3 tools/convert_checkpoint.py --model_dir bert-base-uncased \
        --output_dir uncased_L-12_H-768_A-12_oneflow
    python3 tools/convert_checkpoint.py --model_dir SNAPSHOT --output_dir my_model --to hugging_face
    python3 tools/convert_checkpoint.py --model_dir SNAPSHOT --output_dir student --layers 1,3,5
    python3 tools/convert_checkpoint.py --model_dir SNAPSHOT --output_dir model.onnx --to onnx
    python3 tools/convert_checkpoint.py --model_dir SNAPSHOT --output_dir small.onnx --to onnx \
        --int8 --dev_file dev.csv
    python3 tools/convert_checkpoint.py --model_dir SNAPSHOT --output_dir encoder.npz --to npz
    python3 tools/convert_checkpoint.py --model_dir encoder.npz --output_dir back \
        --vocab_file vocab.txt
    python3 tools/convert_checkpoint.py --model_dir palm.ch.base --output_dir palm.ch.base_oneflow

The tool recognises the input format from the content of --model_dir: a Hugging Face folder (config.json), a snapshot,
Google's TensorFlow checkpoint (bert_model.ckpt.index, bert_config.json, vocab.txt; needs TensorFlow), an .npz file in
MEAD's layout, or a PALM of SOFA (config.json with model_type palm). --to selects the output format: a snapshot, a
Hugging Face folder, an .onnx file (needs requirements-extras.txt), an .npz file, or for a PALM a folder with SOFA's
names. The tool lists the variables that the output format cannot store.
"""

if not __package__:
    import _root  # noqa: F401

import dataclasses
import functools
import inspect
import os
import re

from modeling.bert.config import BERT, PALM
from modeling.bert.variant import LAYER_NORMS, POSITIONS
from modeling.checkpoints.snapshot import DONE, VOCAB_FILE, find_snapshot
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flags import add_text_flags
from modeling.report.hub_card import UNKNOWN_LICENSE, check_license
from ofrecord_util import output_checks
from ofrecord_util.escaping import say
from tools import checkpoint_hugging_face, checkpoint_npz, checkpoint_onnx, checkpoint_palm, checkpoint_snapshot, checkpoint_tensorflow
from tools.checkpoint_card import CARD_FILE, is_own_card
from tools.checkpoint_model import select_layers
from tools.checkpoint_variant import BEFORE_RESIDUAL, change_form, check_form

SNAPSHOT, HUGGING_FACE, NPZ, ONNX, SOFA_PALM = "snapshot", "hugging_face", "npz", "onnx", "palm"
_WRITERS = {
    SNAPSHOT: checkpoint_snapshot,
    HUGGING_FACE: checkpoint_hugging_face,
    NPZ: checkpoint_npz,
    ONNX: checkpoint_onnx,
    SOFA_PALM: checkpoint_palm,
}
_FILES = {NPZ: ".npz", ONNX: ".onnx"}  # formats of one file, with its end


def recognise(model_dir):
    """Returns the module that reads the format of `model_dir`.

    Raises:
        UserError: if the path does not exist, or is a file of another type than .npz.
    """
    if os.path.isfile(model_dir):
        if not model_dir.endswith(_FILES[NPZ]):
            raise UserError(f"--model_dir {model_dir}: of single files, only .npz is supported; give the folder for other formats")
        return checkpoint_npz
    if not os.path.isdir(model_dir):
        raise UserError(f"--model_dir {model_dir}: no such folder; download a model from the Hugging Face hub first")
    if checkpoint_palm.is_palm(model_dir):
        return checkpoint_palm
    if os.path.isfile(os.path.join(model_dir, "config.json")):
        return checkpoint_hugging_face
    if checkpoint_snapshot.is_snapshot(model_dir):
        return checkpoint_snapshot
    if os.path.isfile(os.path.join(model_dir, checkpoint_tensorflow.INDEX)):
        return checkpoint_tensorflow
    return checkpoint_hugging_face  # its error says what is missing


def _is_own(path, to):
    """Whether this tool wrote `path`. A mistyped path must not delete a folder of the user."""
    if to in _FILES:
        return os.path.isfile(path) and (checkpoint_npz.is_npz_of_mead if to == NPZ else checkpoint_onnx.is_own)(path)
    if not os.path.isdir(path):
        return False
    if to == SNAPSHOT:
        return os.path.isfile(os.path.join(path, DONE))
    if to == SOFA_PALM:
        return sorted(os.listdir(path)) == sorted(checkpoint_palm.FILES)
    # earlier versions wrote neither tokenizer.json nor a card
    newer, card = {checkpoint_hugging_face.TOKENIZER, CARD_FILE}, os.path.join(path, CARD_FILE)
    names, files = set(os.listdir(path)), set(checkpoint_hugging_face.FILES)
    if names == files - {VOCAB_FILE}:  # XLM-R and RoBERTa
        return is_own_card(card)
    return names | newer == files and (not os.path.isfile(card) or is_own_card(card))


def _check_output(model_dir, output_dir, overwrite, to, from_snapshot):
    source, target = os.path.realpath(model_dir), os.path.realpath(output_dir)
    if source == target or source.startswith(target + os.sep):
        raise UserError(f"--output_dir {output_dir} holds --model_dir {model_dir}, and would replace it; choose another folder")
    if from_snapshot and target.startswith(source + os.sep):  # a folder of another format may have `onnx/model.onnx` in it
        raise UserError(f"--output_dir {output_dir} is in --model_dir {model_dir}, a snapshot, which stays as it is; choose another place")
    if to in _FILES and not output_dir.endswith(_FILES[to]):
        raise UserError(f"--output_dir {output_dir}: --to {to} writes one file; give a path that ends in {_FILES[to]}")
    if not os.path.lexists(output_dir):
        return
    if to not in _FILES and os.path.isdir(output_dir) and not os.listdir(output_dir):
        return
    if not overwrite:
        raise UserError(f"--output_dir {output_dir} exists; --overwrite replaces it")
    if not _is_own(output_dir, to):
        what = {
            SNAPSHOT: f"is not a snapshot, because it has no {DONE}",
            SOFA_PALM: f"does not hold exactly {', '.join(checkpoint_palm.FILES)} of this tool",
            HUGGING_FACE: f"does not hold exactly {', '.join(checkpoint_hugging_face.FILES)} of this tool",
            NPZ: "is not an NPZ file of an encoder",
            ONNX: "is not an ONNX file of this tool",
        }[to]
        raise UserError(f"--output_dir {output_dir} {what}, so --overwrite leaves it alone")


def _check_kind(checkpoint, to, layers, pair):
    """Raises a UserError if a PALM is to become something that only a BERT can be, or the other way round."""
    is_palm = checkpoint.config.model_type == PALM
    if is_palm and to not in (SNAPSHOT, SOFA_PALM):
        raise UserError(f"--to {to}: the model is a PALM, which has another form: --to {SNAPSHOT} or --to {SOFA_PALM}")
    if not is_palm and to == SOFA_PALM:
        raise UserError(f"--to {SOFA_PALM}: the model is not a PALM")
    if to in (HUGGING_FACE, ONNX):
        check_form(checkpoint, to)
    if is_palm and (layers is not None or pair):
        raise UserError(f"{'--layers' if layers is not None else '--pair'}: the model is a PALM: leave the flag out")


def _agreed(flag, given, found, model_dir):
    """Returns the value of a flag or of the checkpoint. Raises a UserError if they differ."""
    if given is not None and found is not None and given != found:
        raise UserError(f"{flag} {str(given).lower()}: {model_dir} says {str(found).lower()}; leave the flag out")
    return given if found is None else found


_PATHS = ("model_dir", "output_dir", "vocab_file", "dev_file")  # arguments of `convert`


def _begins_with(message, path):
    """Whether a message is about a path: begins with it, or with that of a file in it. A path that is one word may be a word of the text,
    so it does not count if a blank follows."""
    start = os.fspath(path).rstrip(os.sep)
    ends = {start: "[/: ]" if os.sep in start else "[/:]", os.path.abspath(start): "[/: ]"}
    return any(re.match(rf"(snapshot )?{re.escape(each)}{end}", message) for each, end in ends.items())


def _naming_the_model(function):
    """Adds the path of the model to a UserError that begins neither with a flag nor with a path of the command: what readers and writers
    find wrong in the tensors, sizes and names of the model."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def naming(*args, **flags):
        try:
            return function(*args, **flags)
        except UserError as error:
            message, given = str(error), signature.bind(*args, **flags).arguments
            paths = [given[name] for name in _PATHS if given.get(name) is not None]
            if message.startswith("--") or any(_begins_with(message, path) for path in paths):
                raise
            raise UserError(f"--model_dir {given['model_dir']}: {message}") from error

    return naming


@_naming_the_model
def convert(model_dir, output_dir, overwrite=False, log=say, to=SNAPSHOT, layers=None, vocab_file=None,
            num_attention_heads=None, do_lower_case=None, pair=False, license=UNKNOWN_LICENSE, dev_file=None,
            text_flags=None, layer_norms=None, positions=None, windowed=False):  # fmt: skip
    """Converts the BERT at `model_dir`.

    Args:
        model_dir: Hugging Face folder, snapshot, folder of a run with one best snapshot, folder of Google's TensorFlow checkpoint, or
            .npz file.
        output_dir: folder for the output, or the file if `to` is npz.
        overwrite: whether to replace the output of an earlier call.
        log: called with each line for the user.
        to: snapshot, hugging_face, onnx or npz.
        layers: encoder layers to keep, from 0, in their new order; None for all.
        vocab_file: vocabulary; None for the one in `model_dir`.
        num_attention_heads: number of heads, for weights without a configuration; None for heads of size 64.
        do_lower_case: casing, if the checkpoint does not say it, or a Hugging Face folder says it wrongly.
        pair: whether the classifier of a Hugging Face folder labels pairs of texts.
        license: identifier of the hub for the card of a Hugging Face folder.
        dev_file: labelled text; if it is given, an ONNX file has 8-bit weights, and their loss of accuracy on the text is measured.
        text_flags: dict of the flags that describe this text, by name.
        layer_norms, positions: form of an encoder of MEAD, which its NPZ does not say, or another form of a BERT
            (tools/checkpoint_variant.py); None for that of the checkpoint.
        windowed: whether the relative positions of an NPZ limit the attention.
    Raises:
        UserError: if the input is not a BERT or is damaged, a flag contradicts it, or the output cannot be written.
    """
    model_dir = find_snapshot(model_dir)
    reader = recognise(model_dir)
    check_license(license)
    _check_output(model_dir, output_dir, overwrite, to, reader is checkpoint_snapshot)
    if to in _FILES:
        output_checks.check_output(output_dir, "--output_dir", to == NPZ, [dev_file] if dev_file else [])
    else:
        output_checks.check_output_folder(output_dir, "--output_dir")
    if reader is checkpoint_npz and to != NPZ and vocab_file is None:
        raise UserError(f"--model_dir {model_dir}: NPZ has no vocabulary; set --vocab_file")
    if reader is checkpoint_npz:
        checkpoint = reader.read(model_dir, vocab_file, num_attention_heads, layer_norms, positions, windowed)
    elif windowed:
        raise UserError(f"--windowed says how an .npz file is read, and {model_dir} is none: leave the flag out")
    else:
        checkpoint = change_form(reader.read(model_dir, vocab_file, num_attention_heads), layer_norms, positions)
    _check_kind(checkpoint, to, layers, pair)
    _agreed("--num_attention_heads", num_attention_heads, checkpoint.config.num_attention_heads, model_dir)
    lower = do_lower_case
    if reader is checkpoint_snapshot:  # a trained model has only one casing; a tokenizer_config.json of others may be wrong
        lower = _agreed("--do_lower_case", do_lower_case, checkpoint.do_lower_case, model_dir)
    elif lower is not None and checkpoint.do_lower_case not in (None, lower):
        log(f"--do_lower_case {str(lower).lower()} is used, {model_dir} says {str(checkpoint.do_lower_case).lower()}")
    if lower and checkpoint.config.model_type not in (BERT, PALM):
        raise UserError(f"--do_lower_case true: the tokenizer of {model_dir} says by itself how text is normalised: leave the flag out")
    if lower is not None:
        checkpoint = checkpoint._replace(settings=dataclasses.replace(checkpoint.settings, do_lower_case=lower))
        if checkpoint.task is not None:
            checkpoint = checkpoint._replace(task=dict(checkpoint.task, do_lower_case=lower))
    if pair:
        if checkpoint.task is None or not checkpoint.num_labels:
            raise UserError(f"--pair: {model_dir} has no classifier with names of labels, so it does not label pairs; leave the flag out")
        checkpoint.config.check_pairs(model_dir)
        checkpoint = checkpoint._replace(task=dict(checkpoint.task, pair=True))
    if reader is checkpoint_hugging_face and checkpoint.num_labels and checkpoint.task is not None:
        advice = " (--pair converts a classifier of text pairs)" if checkpoint.config.takes_pairs else ""
        kind = "pairs of texts" if pair else "single texts" + advice
        checkpoint = checkpoint._replace(notes=(*checkpoint.notes, f"tools/predict.py labels {kind} with this classifier"))
    if checkpoint.vocab is None and to != NPZ:
        raise UserError(f"--model_dir {model_dir}: no vocabulary in the same folder as the weights; set --vocab_file")
    if layers is not None:
        checkpoint = select_layers(checkpoint, layers)
    changed = any(value is not None for value in (layers, vocab_file, layer_norms, positions))
    measured = not changed and reader is checkpoint_snapshot  # the results of the run are those of this model
    checkpoint = checkpoint._replace(source=model_dir if measured else None, license=license)
    write = _WRITERS[to].write
    if dev_file is not None:
        write = functools.partial(write, dev_file=dev_file, text_flags=text_flags)
    written, notes = write(output_dir, checkpoint)

    config = checkpoint.config
    parameters = sum(checkpoint.variables[name].size for name in written)
    tokens = f"{checkpoint.num_tokens} tokens" if checkpoint.vocab else "no vocabulary"
    log(
        f"{output_dir}: {config.num_hidden_layers} layers x {config.hidden_size}, {config.num_attention_heads} heads, "
        f"{tokens}; {len(written)} variables, {parameters / 1e6:.1f} million parameters"
    )
    for note in (*checkpoint.notes, *notes):
        log(note)


def _layer_list(text):
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"--layers {text!r}: must be encoder layers from 0, separated by commas, such as 1,3,5") from error


def main(argv=None):
    """Parses the command line and converts."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--model_dir", required=True, help="model to convert: Hugging Face folder, snapshot, Google's checkpoint folder or .npz file"
    )
    parser.add_argument("--output_dir", required=True, help="folder for the output (a file with --to onnx and --to npz)")
    parser.add_argument("--overwrite", action="store_true", help="replace the output of an earlier conversion")
    parser.add_argument("--to", choices=sorted(_WRITERS), default=SNAPSHOT, help="output format")
    parser.add_argument("--layers", metavar="I,J,…", help="encoder layers to keep, counted from 0, in this order (default: all)")
    parser.add_argument("--vocab_file", help="vocabulary (default: the one in --model_dir)")
    parser.add_argument(
        "--num_attention_heads", type=int, help="number of heads, for weights without a configuration (default: heads of size 64)"
    )
    parser.add_argument(
        "--layer_norms",
        choices=(*LAYER_NORMS, BEFORE_RESIDUAL),
        help=f"where the layer norms of an encoder of MEAD are, which .npz does not say if they come first ({BEFORE_RESIDUAL}: MEAD's "
        "default); or another place in a BERT, which must be trained then",
    )
    parser.add_argument("--positions", choices=POSITIONS, help="kind of positions, likewise")
    parser.add_argument("--windowed", action="store_true", help="the relative positions of the .npz file limit the attention")
    parser.add_argument("--do_lower_case", choices=("true", "false"), help="whether the model is uncased (default: as in the checkpoint)")
    parser.add_argument("--pair", action="store_true", help="the classifier of the Hugging Face folder labels pairs of texts")
    parser.add_argument("--license", default=UNKNOWN_LICENSE, help="licence for the card of --to hugging_face, as the hub names it")
    parser.add_argument("--int8", action="store_true", help="8-bit weights, with --to onnx and --dev_file")
    parser.add_argument("--dev_file", metavar="FILE", help="labelled text on which the loss of accuracy by --int8 is measured")
    add_text_flags(parser)
    flags = parser.parse_args(argv)
    if flags.int8 and (flags.to != ONNX or flags.dev_file is None):
        raise UserError("--int8 needs --to onnx, and --dev_file FILE with labelled text on which its loss of accuracy is measured")
    if flags.dev_file is not None and not flags.int8:
        raise UserError("--dev_file is the text on which the loss by --int8 is measured: add --int8, or use tools/evaluate.py")
    if flags.license != UNKNOWN_LICENSE and flags.to != HUGGING_FACE:
        raise UserError("--license is written into the card of --to hugging_face alone")
    convert(
        flags.model_dir,
        flags.output_dir,
        flags.overwrite,
        to=flags.to,
        layers=_layer_list(flags.layers),
        vocab_file=flags.vocab_file,
        num_attention_heads=flags.num_attention_heads,
        do_lower_case=None if flags.do_lower_case is None else flags.do_lower_case == "true",
        pair=flags.pair,
        license=flags.license,
        dev_file=flags.dev_file,
        text_flags=vars(flags),
        layer_norms=flags.layer_norms,
        positions=flags.positions,
        windowed=flags.windowed,
    )


if __name__ == "__main__":
    run(main)
