r"""Converts a BERT between the snapshots of this project and other formats.

    python3 tools/convert_checkpoint.py --model_dir bert-base-uncased \
        --output_dir uncased_L-12_H-768_A-12_oneflow
    python3 tools/convert_checkpoint.py --model_dir SNAPSHOT --output_dir my_model --to hugging_face
    python3 tools/convert_checkpoint.py --model_dir SNAPSHOT --output_dir student --layers 1,3,5
    python3 tools/convert_checkpoint.py --model_dir SNAPSHOT --output_dir encoder.npz --to npz
    python3 tools/convert_checkpoint.py --model_dir encoder.npz --output_dir back \
        --vocab_file vocab.txt

The tool recognises the input format from the content of --model_dir: a Hugging Face folder (config.json), a snapshot,
Google's TensorFlow checkpoint (bert_model.ckpt.index, bert_config.json, vocab.txt; needs TensorFlow) or an .npz file in
MEAD's layout. --to selects the output format: a snapshot, a Hugging Face folder or an .npz file. The tool lists the
variables that the output format cannot store.
"""

if not __package__:
    import _root  # noqa: F401

import dataclasses
import os

from modeling.checkpoints.snapshot import DONE
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from ofrecord_util import files
from ofrecord_util.escaping import say
from tools import checkpoint_hugging_face, checkpoint_npz, checkpoint_snapshot, checkpoint_tensorflow
from tools.checkpoint_model import select_layers

SNAPSHOT, HUGGING_FACE, NPZ = "snapshot", "hugging_face", "npz"
_WRITERS = {SNAPSHOT: checkpoint_snapshot, HUGGING_FACE: checkpoint_hugging_face, NPZ: checkpoint_npz}


def recognise(model_dir):
    """Returns the module that reads the format of `model_dir`.

    Raises:
        UserError: if the path does not exist, or is a file of another type than .npz.
    """
    if os.path.isfile(model_dir):
        if not model_dir.endswith(".npz"):
            raise UserError(f"--model_dir {model_dir}: of single files, only .npz is supported; give the folder for other formats")
        return checkpoint_npz
    if not os.path.isdir(model_dir):
        raise UserError(f"--model_dir {model_dir}: no such folder; download a model from the Hugging Face hub first")
    if os.path.isfile(os.path.join(model_dir, "config.json")):
        return checkpoint_hugging_face
    if checkpoint_snapshot.is_snapshot(model_dir):
        return checkpoint_snapshot
    if os.path.isfile(os.path.join(model_dir, checkpoint_tensorflow.INDEX)):
        return checkpoint_tensorflow
    return checkpoint_hugging_face  # its error says what is missing


def _is_own(path, to):
    """Whether this tool wrote `path`. A mistyped path must not delete a folder of the user."""
    if to == NPZ:
        return os.path.isfile(path) and checkpoint_npz.is_npz_of_mead(path)
    if not os.path.isdir(path):
        return False
    if to == SNAPSHOT:
        return os.path.isfile(os.path.join(path, DONE))
    # earlier versions wrote no tokenizer.json
    return set(os.listdir(path)) | {checkpoint_hugging_face.TOKENIZER} == set(checkpoint_hugging_face.FILES)


def _check_output(model_dir, output_dir, overwrite, to):
    source, target = os.path.realpath(model_dir), os.path.realpath(output_dir)
    if source == target or source.startswith(target + os.sep):
        raise UserError(f"--output_dir {output_dir} holds --model_dir {model_dir}, and would replace it; choose another folder")
    if to == NPZ and not output_dir.endswith(".npz"):
        raise UserError(f"--output_dir {output_dir}: --to npz writes one file; give a path that ends in .npz")
    if not os.path.lexists(output_dir):
        return
    if to != NPZ and os.path.isdir(output_dir) and not os.listdir(output_dir):
        return
    if not overwrite:
        raise UserError(f"--output_dir {output_dir} exists; --overwrite replaces it")
    if not _is_own(output_dir, to):
        what = {
            SNAPSHOT: f"is not a snapshot, because it has no {DONE}",
            HUGGING_FACE: f"does not hold exactly {', '.join(checkpoint_hugging_face.FILES)}",
            NPZ: "is not an NPZ file of an encoder",
        }[to]
        raise UserError(f"--output_dir {output_dir} {what}, so --overwrite leaves it alone")


def _agreed(flag, given, found, model_dir):
    """Returns the value of a flag or of the checkpoint. Raises a UserError if they differ."""
    if given is not None and found is not None and given != found:
        raise UserError(f"{flag} {str(given).lower()}: {model_dir} says {str(found).lower()}; leave the flag out")
    return given if found is None else found


def convert(model_dir, output_dir, overwrite=False, log=say, to=SNAPSHOT, layers=None, vocab_file=None,
            num_attention_heads=None, do_lower_case=None, pair=False):  # fmt: skip
    """Converts the BERT at `model_dir`.

    Args:
        model_dir: Hugging Face folder, snapshot, folder of Google's TensorFlow checkpoint, or .npz file.
        output_dir: folder for the output, or the file if `to` is npz.
        overwrite: whether to replace the output of an earlier call.
        log: called with each line for the user.
        to: snapshot, hugging_face or npz.
        layers: encoder layers to keep, from 0, in their new order; None for all.
        vocab_file: vocabulary; None for the one in `model_dir`.
        num_attention_heads: number of heads, for weights without a configuration; None for heads of size 64.
        do_lower_case: casing, if the checkpoint does not say it, or a Hugging Face folder says it wrongly.
        pair: whether the classifier of a Hugging Face folder labels pairs of texts.
    Raises:
        UserError: if the input is not a BERT or is damaged, a flag contradicts it, or the output cannot be written.
    """
    reader = recognise(model_dir)
    _check_output(model_dir, output_dir, overwrite, to)
    files.check_output(output_dir, "--output_dir", True) if to == NPZ else files.check_output_folder(output_dir, "--output_dir")
    if reader is checkpoint_npz and to != NPZ and vocab_file is None:
        raise UserError(f"--model_dir {model_dir}: NPZ has no vocabulary; set --vocab_file")
    checkpoint = reader.read(model_dir, vocab_file, num_attention_heads)
    _agreed("--num_attention_heads", num_attention_heads, checkpoint.config.num_attention_heads, model_dir)
    lower = do_lower_case
    if reader is checkpoint_snapshot:  # a trained model has only one casing; a tokenizer_config.json of others may be wrong
        lower = _agreed("--do_lower_case", do_lower_case, checkpoint.do_lower_case, model_dir)
    elif lower is not None and checkpoint.do_lower_case not in (None, lower):
        log(f"--do_lower_case {str(lower).lower()} is used, {model_dir} says {str(checkpoint.do_lower_case).lower()}")
    if lower is not None:
        checkpoint = checkpoint._replace(settings=dataclasses.replace(checkpoint.settings, do_lower_case=lower))
        if checkpoint.task is not None:
            checkpoint = checkpoint._replace(task=dict(checkpoint.task, do_lower_case=lower))
    if pair:
        if checkpoint.task is None:
            raise UserError(f"--pair: {model_dir} has no classifier with names of labels, so it does not label pairs; leave the flag out")
        checkpoint.config.check_pairs(model_dir)
        checkpoint = checkpoint._replace(task=dict(checkpoint.task, pair=True))
    if reader is checkpoint_hugging_face and checkpoint.task is not None:
        kind = "pairs of texts" if pair else "single texts (--pair converts a classifier of text pairs)"
        checkpoint = checkpoint._replace(notes=(*checkpoint.notes, f"tools/predict.py labels {kind} with this classifier"))
    if checkpoint.vocab is None and to != NPZ:
        raise UserError(f"--model_dir {model_dir}: no vocabulary in the same folder as the weights; set --vocab_file")
    if layers is not None:
        checkpoint = select_layers(checkpoint, layers)
    written, notes = _WRITERS[to].write(output_dir, checkpoint)

    config = checkpoint.config
    parameters = sum(checkpoint.variables[name].size for name in written)
    tokens = f"{checkpoint.vocab.count(chr(10))} tokens" if checkpoint.vocab else "no vocabulary"
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
    parser.add_argument("--output_dir", required=True, help="folder for the output (a file with --to npz)")
    parser.add_argument("--overwrite", action="store_true", help="replace the output of an earlier conversion")
    parser.add_argument("--to", choices=sorted(_WRITERS), default=SNAPSHOT, help="output format")
    parser.add_argument("--layers", metavar="I,J,…", help="encoder layers to keep, counted from 0, in this order (default: all)")
    parser.add_argument("--vocab_file", help="vocabulary (default: the one in --model_dir)")
    parser.add_argument(
        "--num_attention_heads", type=int, help="number of heads, for weights without a configuration (default: heads of size 64)"
    )
    parser.add_argument("--do_lower_case", choices=("true", "false"), help="whether the model is uncased (default: as in the checkpoint)")
    parser.add_argument("--pair", action="store_true", help="the classifier of the Hugging Face folder labels pairs of texts")
    flags = parser.parse_args(argv)
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
    )


if __name__ == "__main__":
    run(main)
