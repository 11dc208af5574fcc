# Configuration of Sphinx. Nothing here reads from the network.

import shutil
import sys
from pathlib import Path

import skocc

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "skocc"
author = "The skocc developers"
copyright = "The skocc developers"
version = release = skocc.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "matplotlib.sphinxext.plot_directive",
    "mathml",
    "myst_nb",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
# The gallery's scripts are shown as pages; what it writes beside them is for downloads.
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py", "gallery/*.md5"]

# References that lead nowhere are errors. Other projects' are not looked up, because their
# lists of names would have to be downloaded.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!skocc).*")]

html_theme = "pydata_sphinx_theme"
html_title = f"skocc {version}"
html_static_path = ["_static"]
html_css_files = ["skocc.css"]
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
    "show_toc_level": 2,
}
html_sidebars = {"index": []}
html_show_sourcelink = False
# "On this page" shows `fit`, not `DeepSVDD.fit`, which is wider than the column.
toc_object_entries_show_parents = "hide"

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

# Examples are run at every build. A warning in one ends the build.
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skocc",),
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "show_memory": False,
    "min_reported_time": 5,
    "download_all_examples": False,
    "matplotlib_animations": False,
}

# Pictures of pages are drawn by the code that the pages hold.
plot_include_source = False
plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = [("png", 110)]

# Notebooks are run at every build, and an error in one ends it.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]

# Prompts and outputs are left out of what is copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def copy_notebooks(app):
    """Bring the notebooks into the folder of the sources, where Sphinx can read them."""
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    for path in sorted((HERE.parent / "examples" / "notebooks").glob("*.ipynb")):
        shutil.copyfile(path, target / path.name)


def setup(app):
    app.connect("builder-inited", copy_notebooks, priority=0)
