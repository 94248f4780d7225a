"""Lists the imports between the packages of the project, and those that break a rule.

    python3 tools/list_imports.py
    python3 tools/list_imports.py --root ../another_checkout

Prints one line per pair of packages with the number of files that import. An import must go from a later package of PACKAGES to an earlier
one, and only modeling/engine may import OneFlow. Exit code 1 if an import breaks this.
"""

if not __package__:
    import _root  # noqa: F401

import ast
import collections
import os

from modeling.cli.command_line import Parser
from modeling.cli.errors import run
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import say

PACKAGES = (
    "ofrecord_util",
    "modeling.cli",
    "modeling.engine",
    "modeling.bert",
    "modeling.palm",
    "modeling.objectives",
    "modeling.checkpoints",
    "modeling.run",
    "modeling.report",
    "modeling.text_model",
    "modeling.predictor",
    "modeling.embedder",
    "modeling.text_generator",
)
_SKIPPED = {"tests", "models", "output", "data", "docs"}


def sources(root):
    """Paths of the Python files below `root`, relative to it. Tests are left out."""
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(folder, name), root)


def imports_of(source):
    """Dotted names of the modules that a source text imports, anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module):
    """The package of a module, or None for a module outside of them."""
    return next((name for name in PACKAGES if module == name or module.startswith(name + ".")), None)


def own_package(path):
    """The package of a file."""
    return package_of(path[: -len(".py")].replace(os.sep, "."))


def faults(path, source):
    """Modules that a file imports against the rules, sorted.

    Args:
        path: of the file, relative to the root.
        source: its text.
    """
    own, found = own_package(path), set()
    for module in imports_of(source):
        other = package_of(module)
        if own and other and PACKAGES.index(other) > PACKAGES.index(own):
            found.add(module)
        if module.split(".")[0] == "oneflow" and not path.startswith(os.path.join("modeling", "engine", "")):
            found.add(module)
    return sorted(found)


def main():
    parser = Parser(prints_result=True, description=__doc__)
    parser.add_argument("--root", default=".", help="folder of a checkout")
    args = parser.parse_args()
    if not os.path.isdir(os.path.join(args.root, "modeling")):
        raise UserError(f"--root {args.root}: no checkout of this project, there is no modeling/ in it")
    arrows, broken = collections.Counter(), []
    for path in sources(args.root):
        with open(os.path.join(args.root, path), encoding="utf-8") as file:
            source = file.read()
        own = own_package(path)
        arrows.update((own, other) for other in {package_of(module) for module in imports_of(source)} if own and other not in (None, own))
        broken += [f"{path} imports {module}" for module in faults(path, source)]
    for (one, other), count in sorted(arrows.items(), key=lambda item: tuple(map(PACKAGES.index, item[0]))):
        say(f"{one:22} -> {other:22} files: {count}")
    say(f"{len(arrows)} arrows between {len(PACKAGES)} packages")
    for line in broken:
        say(f"against the rules: {line}")
    return 1 if broken else 0


if __name__ == "__main__":
    run(main)
