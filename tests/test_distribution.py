"""What is installed: how many packages, how large, and the reason for each."""

import io
import re
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "guide" / "dependencies.rst").read_text(encoding="utf-8")

tomllib = pytest.importorskip("tomllib")
requirements = pytest.importorskip("packaging.requirements")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement):
    return requirements.Requirement(requirement).name


def test_each_package_has_its_reason():
    named = set(re.findall(r"^   (?:\* |  )- ([\w-]+)$", PAGE, re.MULTILINE))
    extras = PROJECT["optional-dependencies"]
    of_users = [
        name_of(requirement)
        for extra in extras.keys() - {"test", "docs", "dev"}
        for requirement in extras[extra]
    ]
    wanted = {*map(name_of, PROJECT["dependencies"]), *of_users} - {"skocc"}
    assert wanted <= named, wanted - named
    for extra in extras.keys() - {"test", "docs", "dev"}:
        assert f"   * - ``{extra}``\n" in PAGE


def test_a_plain_installation_has_few_packages():
    found, waiting = set(), [("skocc", "")]
    while waiting:
        name, extras = waiting.pop()
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:  # of another platform
            continue
        found.add(re.sub(r"[-_.]+", "-", name).lower())
        for text in requires:
            needed = requirements.Requirement(text)
            environments = [{"extra": extra} for extra in ("", *extras)]
            is_used = needed.marker is None or any(
                map(needed.marker.evaluate, environments)
            )
            if is_used and re.sub(r"[-_.]+", "-", needed.name).lower() not in found:
                waiting.append((needed.name, tuple(needed.extras)))
    # Without CUDA's, 16 more that torch brings on Linux.
    own = {name for name in found if not name.startswith(("cuda-", "nvidia-"))}
    assert "torch" in own
    assert len(own) <= 25, sorted(own)


def test_the_package_is_small():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((ROOT / "skocc").rglob("*.py")):
            archive.write(path, path.relative_to(ROOT))
    # As a wheel has it; half of it are docstrings.
    assert len(buffer.getvalue()) < 600_000
