"""The rules that keep the package small. Each failure says the rule, the line, the fix."""

import ast
from pathlib import Path

import pytest

import skocc

PACKAGE = Path(skocc.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
CONTRIBUTING = PACKAGE.parent / "CONTRIBUTING.md"

# A row for each folder and file of the package: what it holds, what it may import of skocc
# besides itself, and which packages it must not know. No row may use one below it, so that
# there are no circles. `python -m tests.test_architecture` prints the table.
ROOMS = {
    "_nets/": (
        "networks, plain `nn.Module`s, and what normalizes their input",
        set(),
        {"numpy", "sklearn", "PIL"},
    ),
    "_ops/": (
        "pure functions of tensors: losses, maps, neighbors, coreset; the memory bank",
        set(),
        {"sklearn", "torchvision", "PIL"},
    ),
    "_samples/": (
        "reads `X`: input validation, image sources, files, labels, clips, windows; what "
        "users are told: warnings, the log, progress",
        set(),
        {"torch", "torchvision"},
    ),
    "_engine/": (
        "loops over batches: batches, training, inference, checkpoints, devices, seeds, "
        "feature cache",
        {"_samples"},
        {"torchvision", "PIL"},
    ),
    "_base/": (
        "the base detectors, thresholds, heat maps, callbacks, resuming, constraints, "
        "versions, renamed names, scikit-learn's private names",
        {"_samples", "_engine"},
        {"torchvision", "PIL"},
    ),
    "base.py": (
        "what detectors outside of the package are derived from",
        {"_base", "_engine"},
        set(),
    ),
    "estimators/": (
        "one file a method: parameters, `_fit`, `_score`; beside it what one or two "
        "methods alone use",
        {"_base", "_samples", "_engine", "_nets", "_ops"},
        {"PIL"},
    ),
    "feature_extraction/": (
        "transformers from images to a table, one file each",
        {"_base", "_samples", "_engine", "_nets"},
        {"torchvision", "PIL"},
    ),
    "datasets/": (
        "loaders of image folders, which return a `Bunch`; synthetic textures, objects and "
        "defects",
        {"_base", "_samples"},
        {"torch"},
    ),
    "metrics/": (
        "how well samples and pixels are ranked; scorers for scikit-learn's searches",
        {"_base", "_samples"},
        {"torch", "torchvision", "PIL"},
    ),
    "model_selection/": (
        "detectors, splitters and thresholds for scikit-learn's searches; tables of scores "
        "and of detectors",
        {"_base", "_samples", "_engine", "feature_extraction", "datasets", "metrics"},
        {"torch", "torchvision"},
    ),
    "plotting/": (
        "what users look at: displays, drawn by matplotlib",
        {"_samples", "metrics", "model_selection"},
        {"torch", "torchvision", "PIL"},
    ),
    "_persistence/": (
        "`save` and `load`: files of detectors, and archives of what is around them",
        {"_base", "_samples", "_engine", "_ops", "estimators", "feature_extraction",
         "model_selection"},
        set(),
    ),
    "_export/": (
        "fitted detectors as graphs for other runtimes: `export_onnx`, and its comparison",
        {"_base", "_samples", "_engine", "_nets", "_ops", "estimators", "model_selection"},
        {"torchvision", "PIL"},
    ),
    "__init__.py": (
        "where each public name lives",
        # But for the version and the list of detectors, for type checkers only.
        {"_base", "_export", "base.py", "_persistence", "estimators",
         "feature_extraction", "datasets", "metrics", "model_selection", "plotting"},
        {"torch", "sklearn"},
    ),
    "_command_line/": (
        "what commands share, and those but `fit` and `score`",
        {"__init__.py", "_base", "_export", "_persistence", "_samples", "datasets",
         "model_selection", "plotting"},
        {"torch"},
    ),
    "__main__.py": (
        "the command line",
        {"__init__.py", "_base", "_command_line", "_samples", "model_selection"},
        {"torch"},
    ),
}  # fmt: skip
# Folders of which the user may import, those whose names begin without an underscore, hold
# private files only; and of these rooms each file is one task, which knows no other.
APART = {"estimators": {"_layer_spheres", "_patches", "_patch_pairs", "_augmentation",
                        "_filters", "_spheres", "_pretraining", "_patch_networks",
                        "_patch_maps", "_data_splitting", "_without_effect",
                        "_memory_banks"}}  # fmt: skip


def table():
    """Return the table of CONTRIBUTING.md."""
    lines = ["| Folder or file | holds | may import |", "|---|---|---|"]
    for room, (holds, allowed, _) in ROOMS.items():
        names = [f"`{name}`" for name in sorted(allowed)]
        lines.append(f"| `{room}` | {holds} | {', '.join(names) or 'nothing of skocc'} |")
    return "\n".join(lines)


def room_of(path):
    return path.relative_to(PACKAGE).parts[0]


def imports_of(path):
    """Yield (line, dotted module, imported name or None) of every import in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, node.module, alias.name


def target_of(module, name):
    """Return the room that an import of skocc leads to."""
    parts = [*module.split("."), name or ""][1:]
    first = parts[0]
    if (PACKAGE / first).is_dir() and first:
        return first
    return f"{first}.py" if (PACKAGE / f"{first}.py").exists() else "__init__.py"


def test_every_room_has_a_row_and_there_are_few():
    entries = {
        p.name for p in PACKAGE.iterdir() if p.name not in ("__pycache__", "py.typed")
    }
    assert entries == {room.rstrip("/") for room in ROOMS}
    # 14 until there was what users look at, 15 until commands were more than a file, 16
    # until there were graphs for other runtimes, which know all methods.
    assert len(entries) <= 17, "an eighteenth room: put it where its kind is"


def test_no_room_uses_one_below_it():
    above = set()
    for room, (_, allowed, _) in ROOMS.items():
        late = allowed - above
        assert not late, f"{room} may import {late}, whose rows are below its own"
        above.add(room.rstrip("/"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_directions(path):
    room = room_of(path)
    _, allowed, forbidden = ROOMS.get(room) or ROOMS[f"{room}/"]
    for line, module, name in imports_of(path):
        root = module.partition(".")[0]
        if root == "skocc":
            target = target_of(module, name)
            assert target in {*allowed, room}, (
                f"{path}:{line} imports {module}. {room} may import {sorted(allowed)}: "
                "move what it needs to one of these."
            )
            file = module.rpartition(".")[2]
            assert target != room or room not in APART or file in APART[room], (
                f"{path}:{line}: a method imports another; move what they share to a file "
                "of its own"
            )
        assert root not in forbidden, (
            f"{path}:{line} imports {root}, which {room} must not know."
        )


def test_one_backward_one_loop():
    calls = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "backward"
    ]
    assert len(calls) == 1, f"one training loop, _engine/training.py; found {calls}"
    assert calls[0].startswith("_engine/training.py")


def test_private_sklearn_names_come_from_one_file():
    for path in FILES:
        for line, module, name in imports_of(path):
            if module.startswith("sklearn") and "._" in f"{module}.{name}":
                assert path.name == "private_sklearn.py", (
                    f"{path}:{line} imports {name or module}: route it there"
                )


def test_tqdm_is_used_in_one_file():
    for path in FILES:
        for line, module, _ in imports_of(path):
            assert module.split(".")[0] != "tqdm" or path.name == "progress.py", (
                f"{path}:{line} imports {module}: show a stage by _samples/progress.py"
            )


def test_contributing_has_the_table():
    assert table() in CONTRIBUTING.read_text(), "paste `python -m tests.test_architecture`"


def functions_of(path):
    """Yield (name, line, lines of code without the docstring) of every function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            is_doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            n_doc = first.end_lineno - first.lineno + 1 if is_doc else 0
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1 - n_doc


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_short(path):
    for name, line, n_lines in functions_of(path):
        longest = 40 if name == "_fit" else 45
        assert name == "__init__" or n_lines <= longest, (
            f"{path}:{line}: {name} has {n_lines} lines without its docstring, of at most "
            f"{longest}: name a part of it"
        )
    if room_of(path) == "estimators":
        n_lines = len(path.read_text().splitlines())
        assert n_lines <= 600, f"{path} has {n_lines} lines, of at most 600"


@pytest.mark.parametrize("name", skocc.DETECTORS)
def test_constructors_have_few_parameters(name):
    # 31 until networks of the user came, and room for held-out images; 34 until each
    # experiment of the papers had its parameter; 35 until every training had checkpoints.
    n_parameters = len(getattr(skocc, name)().get_params(deep=False))
    assert n_parameters <= 36, f"{name} has {n_parameters} parameters, of at most 36"


def test_tests_mirror_the_rooms():
    tests = Path(__file__).parent
    rooms = {room.strip("_/") for room in ROOMS if room.endswith("/")}
    folders = {p.name for p in tests.iterdir() if (p / "__init__.py").exists()}
    assert folders == rooms


if __name__ == "__main__":
    import sys

    sys.stdout.write(table() + "\n")
