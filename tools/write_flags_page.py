"""Writes docs/flags.md, the list of all flags, from the flag table.

    python3 tools/write_flags_page.py
    python3 tools/write_flags_page.py --output flags.md

Run it after each change of modeling/cli/flag_table.py.
"""

if not __package__:
    import _root  # noqa: F401

import os

from modeling.cli.command_line import Parser
from modeling.cli.errors import UserError, run
from modeling.cli.flags_page import PAGE, flags_page
from ofrecord_util.escaping import say
from ofrecord_util.files import replacing

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def main():
    parser = Parser(description=__doc__)
    parser.add_argument("--output", metavar="FILE", help=f"file to write (default: {PAGE} of this repository)")
    args = parser.parse_args()
    path = args.output or os.path.join(ROOT, PAGE)
    try:
        with replacing(path) as file:
            file.write(flags_page().encode("utf-8"))
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror})") from error
    say(path)


if __name__ == "__main__":
    run(main)
