# Configuration of Sphinx. Nothing here reads from the network.

import skocc

project = "skocc"
author = "The skocc developers"
copyright = "The skocc developers"
version = release = skocc.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
templates_path = ["_templates"]
exclude_patterns = ["_build"]

html_theme = "pydata_sphinx_theme"
html_title = f"skocc {version}"
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": ["page-toc"]}
html_show_sourcelink = False

autosummary_generate = True
autodoc_typehints = "none"  # types are stated in the docstrings

# Methods are shown on the page of their class, not in a table of stubs.
numpydoc_show_class_members = False
# Structure is checked when the pages are built: sections that are unknown, out of order
# or missing, parameters that are undocumented or documented under another name.
numpydoc_validation_checks = {
    "GL03",  # too many blank lines
    "GL06",  # unknown section
    "GL07",  # sections out of order
    "GL08",  # no docstring
    "SS01",  # no summary
    "PR01",  # undocumented parameter
    "PR02",  # documented parameter that does not exist
    "PR03",  # parameters in another order
    "RT01",  # no Returns section
}
# Inherited from scikit-learn, which documents these in its own style.
numpydoc_validation_exclude = {
    r"\.set_(callbacks|params|fit_request|score_request)$",
    r"\.(get_params|get_metadata_routing|fit_predict)$",
}
