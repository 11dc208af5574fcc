"""Links from the HTML representation of an estimator to its page in the documentation."""

import functools
from importlib.metadata import PackageNotFoundError, metadata


@functools.cache
def documentation_url() -> str:
    """Return where the documentation is, without a slash at the end.

    Returns
    -------
    url : str
        The entry "Documentation" of ``[project.urls]`` in ``pyproject.toml``, as it was
        installed. Empty if there is none.
    """
    try:
        entries = metadata("skocc").get_all("Project-URL") or []
    except PackageNotFoundError:  # it runs from a folder
        return ""
    urls = dict(entry.split(", ", maxsplit=1) for entry in entries)
    return urls.get("Documentation", "").rstrip("/")


class DocLinkMixin:
    """Mixin with which scikit-learn links an estimator to its page.

    scikit-learn shows a question mark that leads to the page, or none if the URL of the
    documentation is unknown. List this mixin before scikit-learn's ``BaseEstimator``.
    """

    _doc_link_module = "skocc"

    @property
    def _doc_link_template(self):
        url = documentation_url()
        return url and f"{url}/generated/{{page}}.html"

    def _doc_link_url_param_generator(self):
        # The class of an estimator may be private to its package: what is public are its
        # name and the package, which for detectors is skocc itself.
        package = type(self).__module__.split(".")[1]
        is_public = package[0] != "_" and package != "estimators"
        module = f"skocc.{package}" if is_public else "skocc"
        return {"page": f"{module}.{type(self).__name__}"}
