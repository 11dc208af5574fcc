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
exclude_patterns = ["_build", "gallery/**.ipynb", "gallery/**.py", "gallery/**.md5"]

# References that lead nowhere are errors. Other projects' are not looked up, because their
# lists of names would have to be downloaded: what has a dot after another package's name.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!skocc)[a-z]\w*\..*|logging")]

html_theme = "pydata_sphinx_theme"
html_title = f"skocc {version}"
html_static_path = ["_static"]
html_css_files = ["skocc.css"]
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
    "show_toc_level": 2,
    # The rest of the parts is under "More".
    "header_links_before_dropdown": 6,
    # An icon, because a field would not fit beside them.
    "navbar_persistent": ["search-button"],
}
# Pages without others beside them have nothing to navigate.
html_sidebars = {
    name: [] for name in ("index", "getting_started", "faq", "contributing", "changelog")
}
html_show_sourcelink = False
# "On this page" shows `fit`, not `DeepSVDD.fit`, which is wider than the column.
toc_object_entries_show_parents = "hide"

autosummary_generate = True
autodoc_typehints = "none"  # types are stated in the docstrings

# Methods are shown on the page of their class, not in a table of stubs.
numpydoc_show_class_members = False
# Docstrings are checked when the pages are built, by all checks but these:
numpydoc_validation_checks = {
    "all",
    "ES01",  # no extended summary: one line says it all
    "EX01",  # no example: `tests/test_reference.py` asks for it, but not of each method
    "RT02",  # the returned value has a name
    "SA01",  # no See Also
}
# Inherited from scikit-learn, which documents these in its own style.
numpydoc_validation_exclude = {
    r"\.set_(callbacks|params|fit_request|score_request)$",
    r"\.(get_params|get_metadata_routing|get_n_splits|fit_predict)$",
}

# Examples are run at every build. A warning in one ends the build.
sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skocc",),
    "filename_pattern": r"plot_",
    "subsection_order": [
        f"../examples/gallery/{name}"
        for name in ("features", "thresholds", "choosing", "methods")
    ],
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "show_memory": False,
    "min_reported_time": 5,
    "write_computation_times": False,  # their pages load scripts from the network
    # Not shown where a block ends in a call: axes, texts, and what load_state_dict returns.
    "ignore_repr_types": r"matplotlib|_IncompatibleKeys",
    "remove_config_comments": True,
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
nb_execution_timeout = 1200  # seconds a cell; a busy machine takes long
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


def skip_fields(app, what, name, obj, skip, options):
    """Leave out fields of named tuples, which their class documents as parameters."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app):
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("builder-inited", copy_notebooks, priority=0)
