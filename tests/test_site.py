"""The check of the built documentation, and what can be checked before it is built."""

import math
import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
CHECK = runpy.run_path(str(DOCS / "check_site.py"))
GOOD = """
<html><head>
  <link rel="stylesheet" href="style.css?v=1"><link rel="canonical" href="https://a.invalid/">
  <script src="script.js"></script><script>let page = "https://a.invalid/";</script>
</head><body id="top">
  <a href="#top">up</a> <a href="#">here</a> <a href="deep/other.html#part%20two">there</a>
  <a href="deep/">its index</a> <a href="https://a.invalid/#x">far</a>
  <a href="mailto:a@b">me</a> <img src="data:image/png;base64,AA" alt="dot">
  <img src="_images/a.png" alt="A scratch, outlined">
  <div class="sphx-glr-thumbcontainer"><img src="_images/a.png" alt=""></div>
</body></html>
"""


@pytest.fixture
def site(tmp_path):
    """A folder of a whole site, whose first page is GOOD."""
    for name, text in {
        "index.html": GOOD,
        "deep/index.html": '<a href="../index.html">up</a>',
        "deep/other.html": '<h1 id="part two">Two</h1>',
        "style.css": "body { background: url('_images/a.png') } a { src: url(data:font) }",
        "script.js": "",
        "_images/a.png": "",
        "_static/macros.html": '<script src="{{ a template }}"></script>',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_whole_site_has_no_problems(site):
    assert CHECK["problems"](site) == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('<a href="missing.html">a</a>', "link to missing.html, which is no file"),
        ('<a href="../outside.html">a</a>', "link to ../outside.html, which is no file"),
        ('<a href="#bottom">a</a>', "link to #bottom, where nothing has this anchor"),
        ('<a href="deep/other.html#one">a</a>', "where nothing has this anchor"),
        ('<img src="_images/b.png" alt="b c">', "loads _images/b.png, which is no file"),
        ('<img src="_images/a.png">', "without an alternative text"),
        ('<img src="_images/a.png" alt=" ">', "without an alternative text"),
        ('<img src="_images/a.png" alt="_images/a.png">', "the name of a file"),
        ('<img src="data:image/png,A" alt="Plot.PNG">', "the name of a file"),
        (
            '<img src="_images/sphx_glr_plot_two_things_001.png" alt="plot two things">',
            "the name of a file",
        ),
        (
            '<div class="other"><img src="_images/a.png" alt=""></div>',
            "without an alternative",
        ),
        (
            '<script src="https://a.invalid/a.js"></script>',
            "loads https://a.invalid/a.js from",
        ),
        ('<link rel="preload" href="//a.invalid/font">', "loads //a.invalid/font from"),
        ('<link rel="stylesheet" href="b.css">', "loads b.css, which is no file"),
        (
            "<style>@import 'https://a.invalid/b.css'</style>",
            "loads https://a.invalid/b.css",
        ),
        ('<p style="background: url(http://a.invalid/b)">', "loads http://a.invalid/b"),
        ("<script>window.MathJax = {}</script>", "loads MathJax"),
    ],
)
def test_what_is_broken_is_found(site, line, problem):
    (site / "index.html").write_text(GOOD.replace("</body>", f"{line}</body>"))
    found = CHECK["problems"](site)
    assert any(problem in line and line.startswith("index.html: ") for line in found), found


def test_styles_are_checked(site):
    (site / "style.css").write_text("@font-face { src: url(https://a.invalid/font) }")
    assert CHECK["problems"](site) == [
        "style.css: loads https://a.invalid/font from the network"
    ]


def test_the_command_fails_and_names_what_is_wrong(site, capsys):
    CHECK["main"]([str(site)])
    (site / "deep" / "other.html").unlink()
    with pytest.raises(SystemExit) as stop:
        CHECK["main"]([str(site)])
    assert stop.value.code == 1
    shown = capsys.readouterr().err
    assert "index.html: link to deep/other.html#part%20two, which is no file" in shown
    assert "1 problems" in shown


def test_a_folder_without_pages_is_a_problem(tmp_path):
    assert CHECK["problems"](tmp_path) == [f"{tmp_path}: holds no HTML page"]


def sources():
    """Return the pages as they are written, without those that a build makes of others."""
    made = {"generated", "gallery", "notebooks", "_build"}
    pages = [*DOCS.rglob("*.rst"), *DOCS.rglob("*.md")]
    return [page for page in pages if not made & {*page.relative_to(DOCS).parts}]


def test_no_page_is_long():
    """But for the changelog, which is one list."""
    assert len(sources()) > 40
    long = {p.name: n for p in sources() if (n := len(p.read_text().splitlines())) > 400}
    assert not long, "divide these pages"


def test_pictures_have_an_alternative_text_in_their_source():
    lacking = []
    for page in sources():
        for block in re.findall(
            r"^( *)\.\. (?:image|figure|plot)::.*\n((?:\1 +:.*\n)*)", page.read_text(), re.M
        ):
            if ":alt: " not in block[1]:
                lacking.append(page.name)
    assert not lacking, "pictures without :alt:"


PLOTS = runpy.run_path(str(DOCS / "_ext" / "result_plots.py"))


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("61.2 (-61.9)", [61.2, -61.9, None]),
        ("88 ± 0.4", [88, 0.4]),
        ("-", [None]),
        ("", [None]),
    ],
)
def test_numbers_of_tables_are_read(text, numbers):
    for place, expected in enumerate(numbers):
        number = PLOTS["read_number"](text, place)
        assert math.isnan(number) if expected is None else number == expected


def test_results_are_drawn_where_they_belong():
    rows = PLOTS["read_rows"]("deep_svdd_mnist")
    paper = (PLOTS["column"](rows, "paper mean"), PLOTS["column"](rows, "paper std"))
    labels = [row["class"] for row in rows]
    series = {"paper": paper, "skocc": PLOTS["column"](rows, "skocc mean")}
    ax = PLOTS["dots"](labels, series, xlabel="AUROC")
    assert [label.get_text() for label in ax.get_yticklabels()] == labels
    (first, _, _), (second, _, _) = ax.containers
    assert list(first.get_xdata()) == paper[0]
    assert list(second.get_xdata()) == series["skocc"]
    # Both stand in the line of their label, the first above.
    gap = second.get_ydata() - first.get_ydata()
    assert (gap > 0).all()
    assert (
        abs((first.get_ydata() + second.get_ydata()) / 2 - range(len(rows))) < 1e-9
    ).all()
    assert ax.yaxis_inverted()
    (legend,) = ax.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["paper", "skocc"]
