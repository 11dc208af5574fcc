"""The rules that keep the package small. Each failure says the rule, the line, the fix."""

import ast
from pathlib import Path

import pytest

import skocc

PACKAGE = Path(skocc.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# What each folder may import of skocc; everything it may not, it must not need.
ALLOWED = {
    "estimators": {
        "engine", "nets", "losses", "spheres", "filters", "maps", "neighbors", "banks",
        "patch_pairs", "augmentation", "clips", "feature_cache", "pretraining", "pieces",
        "_fitted", "_one_class", "_validation", "_sklearn", "_warnings",
    },
    "engine": {"engine", "_warnings"},
    "nets": {"nets"},
    "datasets": {"datasets", "_arrays", "_files", "_images", "_sklearn", "_warnings"},
    "feature_extraction": {
        "feature_extraction", "engine", "nets", "feature_cache", "_fitted", "_one_class",
        "_validation", "_images", "_sklearn", "_warnings",
    },
    "metrics": {"metrics", "_arrays", "_sklearn"},
    "model_selection": {
        "model_selection", "_arrays", "_images", "_labels", "_renamed", "_sklearn",
    },
    "losses.py": set(),
    "spheres.py": {"engine", "losses"},
    "pretraining.py": {"engine", "filters", "losses", "nets"},
    "pieces.py": {"nets", "patch_pairs"},
    "filters.py": {"engine"},
    "maps.py": set(),
    "neighbors.py": set(),
    "banks.py": {"neighbors"},
    "patch_pairs.py": set(),
    "augmentation.py": set(),
    "clips.py": {"_files", "_validation", "nets"},
    "feature_cache.py": {"_warnings", "_whole_files"},
    "_one_class.py": {"_sklearn", "_fitted", "_images", "_validation", "_warnings"},
    "_fitted.py": {"_warnings", ""},
    "_validation.py": {"_images", "_labels", "_warnings"},
    "_images.py": {"_warnings"},
    "_labels.py": {"_arrays", "_warnings"},
    "_arrays.py": set(),
    "_sklearn.py": set(),
    "_renamed.py": set(),
    "_warnings.py": set(),
    "_versions.py": set(),
    "_whole_files.py": set(),
    "_persistence.py": {
        "_fitted", "_validation", "_versions", "_whole_files", "engine", "",
    },
    "_table.py": {"model_selection"},
    "__main__.py": {"model_selection", "_files", "_renamed", "_table", ""},
    "_files.py": set(),
    # For type checkers only, as test_public_api.py holds.
    "__init__.py": {
        "datasets", "estimators", "feature_extraction", "metrics", "model_selection",
        "_one_class", "_persistence", "_table", "_versions", "",
    },
}  # fmt: skip
# Packages that a folder must not import.
FORBIDDEN = {
    "nets": {"numpy", "sklearn"},
    "datasets": {"torch"},
    "feature_extraction": {"torchvision", "PIL"},
    "metrics": {"torch", "torchvision", "PIL"},
    "model_selection": {"torch", "torchvision"},
    "losses.py": {"numpy", "sklearn"},
    "spheres.py": {"sklearn"},
    "pretraining.py": {"numpy", "sklearn"},
    "pieces.py": {"numpy", "sklearn"},
    "maps.py": {"torch", "sklearn"},
    "neighbors.py": {"numpy", "sklearn"},
    "banks.py": {"numpy", "sklearn"},
    "patch_pairs.py": {"numpy", "sklearn"},
    "augmentation.py": {"numpy", "sklearn"},
    "clips.py": {"torch", "sklearn"},
    "_one_class.py": {"torch"},
    "_fitted.py": {"torch"},
    "_whole_files.py": {"torch"},
    "_validation.py": {"torch"},
    "_images.py": {"torch"},
    "_labels.py": {"torch"},
    "_table.py": {"torch"},
    "__main__.py": {"torch"},
    "estimators": {"torchvision", "PIL", "tqdm"},
}


def imports_of(path):
    """Yield (line, dotted module) of every import in a file."""
    for line, module, _ in imported_names_of(path):
        yield line, module


def imported_names_of(path):
    """Yield (line, dotted module, name) of every import in a file; name may be empty."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_directions(path):
    part = path.relative_to(PACKAGE).parts[0]
    assert part in ALLOWED, f"{part} is new: add it to ALLOWED in {__file__}"
    for line, module in imports_of(path):
        root, _, rest = module.partition(".")
        if root == "skocc":
            target = rest.split(".")[0]
            assert target in ALLOWED[part], (
                f"{path}:{line} imports {module}. {part} may import "
                f"{sorted(ALLOWED[part])}: move what it needs down a folder."
            )
            assert not (part == "estimators" and target == "estimators"), (
                f"{path}:{line}: an estimator imports another; move what they share down"
            )
        assert root not in FORBIDDEN.get(part, ()), (
            f"{path}:{line} imports {root}, which {part} must not know."
        )


def test_one_backward_one_loop():
    calls = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "backward"
    ]
    assert len(calls) == 1, f"one training loop, engine/training.py; found {calls}"
    assert calls[0].startswith("engine/training.py")


def test_private_sklearn_names_come_from_one_file():
    """Private modules, and private names of public modules."""
    private = {
        (path.relative_to(PACKAGE), line, f"{module}.{name}")
        for path in FILES
        for line, module, name in imported_names_of(path)
        if module.partition(".")[0] == "sklearn" and "._" in f"{module}.{name}"
    }
    elsewhere = [found for found in private if found[0] != Path("_sklearn.py")]
    assert not elsewhere, f"import these in _sklearn.py, and from there: {elsewhere}"
    # Otherwise the test looks at the wrong place.
    names = {name for *_, name in private}
    assert {"sklearn.base._fit_context", "sklearn.utils._safe_indexing"} <= names
