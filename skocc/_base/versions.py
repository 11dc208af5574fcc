"""Versions of skocc and its dependencies, for bug reports and saved models."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TextIO

__version__ = "0.1.0"

_PACKAGES = (
    "skocc",
    "torch",
    "torchvision",
    "numpy",
    "scikit-learn",
    "scipy",
    "joblib",
    "pillow",
    "tqdm",
    "safetensors",
)


def installed_versions() -> dict[str, str | None]:
    """Return the version of each run-time dependency, or None if it is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def show_versions(file: TextIO | None = None) -> None:
    """Write the versions of skocc and its dependencies, and the GPUs that torch finds.

    Read more in the :ref:`User Guide <in_a_service>`.

    Parameters
    ----------
    file : text file, default=None
        File to write to. None means standard output.

    Examples
    --------
    >>> import io
    >>> from skocc import show_versions
    >>> report = io.StringIO()
    >>> show_versions(report)
    >>> "torch" in report.getvalue()
    True
    """
    import torch

    lines = [f"{name}: {found}" for name, found in installed_versions().items()]
    lines.append(f"platform: {platform.platform()}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    lines.append(f"CUDA devices: {', '.join(gpus) or 'none'}")
    lines.append(f"MPS: {torch.backends.mps.is_available()}")
    (file or sys.stdout).write("\n".join(lines) + "\n")
