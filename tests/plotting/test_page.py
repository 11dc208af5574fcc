import base64
import io
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.svm import OneClassSVM
from sklearn.utils import Bunch

from skocc.datasets import make_textures, stain_defects
from skocc.feature_extraction import Pixels
from skocc.model_selection import compare
from skocc.plotting._page import _without_folders, check_matplotlib, page_of
from tests.model_selection.test_compare import Darkness, Failing, Warning_

HOSTILE = "<script>alert('x')</script> & \"quoted\" $x_{1$ \u202e"
FAST = {"n_resamples": 100, "random_state": 0}


class Page(HTMLParser):
    """Tags, texts and pictures of a page, whose tags are all closed."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.text, self.pictures, self._open = [], "", [], []
        self.feed(content.decode())
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in ("meta", "img", "source"):
            self._open.append(tag)
        for source in (attrs.get("src"), attrs.get("srcset")):
            if source is not None:
                kind, data = re.fullmatch(r"data:([\w/+]+);base64,(.*)", source).groups()
                self.pictures.append((kind, base64.b64decode(data, validate=True)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] != "style":
            self.text += data

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def compared():
    images = make_textures(60, size=16, random_state=0)
    images[40:], stains = stain_defects(images[40:], random_state=0)
    detectors = {
        HOSTILE: Darkness(2.0),
        "_forest": make_pipeline(Pixels(image_size=8), IsolationForest(random_state=0)),
        "failing": Failing(ValueError(f"{HOSTILE} in /home/somebody/tiles/a.png")),
    }
    y = np.repeat(["good", HOSTILE], [40, 20])
    masks = [None] * 40 + list(stains)
    return detectors, compare(detectors, images, y, masks=masks, n_examples=8, **FAST)


def test_one_page_that_needs_nothing_else(compared):
    detectors, comparison = compared
    content = page_of(comparison, title=HOSTILE, detectors=detectors, command="a < b")
    page = Page(content)
    assert b"http" not in content
    assert b"<script" not in content
    assert "\u202e" not in content.decode()
    assert len(content) < 3 * 2**20
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form"}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.of("html") == [{"lang": "en"}]
    assert "prefers-color-scheme: dark" in content.decode()
    # Once in the title, as name of rows, figures and examples, and in an error.
    assert page.text.count("<script>alert('x')</script>") > 20
    assert "a < b" in page.text


def test_every_picture_can_be_read_and_says_what_it_shows(compared):
    detectors, comparison = compared
    page = Page(page_of(comparison, title="tiles", detectors=detectors))
    assert all(attrs["alt"] for attrs in page.of("img"))
    kinds = [kind for kind, _ in page.pictures]
    # Light and dark: the curves, and a histogram of each. Eight misses and false alarms.
    assert kinds.count("image/svg+xml") == 2 * (1 + 2)
    assert kinds.count("image/jpeg") == 2 * 2 * 8
    for kind, data in page.pictures:
        if kind == "image/jpeg":
            width, height = Image.open(io.BytesIO(data)).size
            # The image, the map, the contour, and of misses the mask; or the image alone.
            assert round(width / height) in (1, 3, 4)
        else:
            assert data.startswith(b"<?xml")
            assert b"</svg>" in data
    light, dark = (data for _, data in page.pictures[:2])
    assert light != dark
    sources = page.of("source")
    assert all("dark" in attrs["media"] for attrs in sources)
    alts = [attrs["alt"] for attrs in page.of("img")]
    assert alts[0].startswith("ROC curves of 2 detectors")
    examples = comparison.examples[HOSTILE]
    worst = examples.misses[0]
    score = comparison.scores[HOSTILE][0][comparison.test[0].tolist().index(worst)]
    assert any(alt.startswith(f"image {worst}, ") for alt in alts)
    assert any(alt.endswith(f": {score:.4g}") for alt in alts)


def test_the_table_has_numbers_intervals_and_errors(compared):
    detectors, comparison = compared
    page = Page(page_of(comparison, title="tiles", detectors=detectors))
    row = comparison.table.iloc[0]
    shown = f"{row['image_auroc']:.3f} [{row['image_auroc_low']:.3f}, "
    assert shown in " ".join(page.text.split())
    assert "1 failed; the table says why." in page.text
    assert "in a.png" in page.text
    assert "somebody" not in page.text
    assert len(page.of("th")) == 1 + 6 + 3 + 3
    # The best is unfolded among the examples.
    is_open = ["open" in attrs for attrs in page.of("details")]
    assert is_open[0]
    assert sum(is_open) == 1


def test_how_it_was_run(compared, tmp_path):
    comparison = compared[1]
    weights = tmp_path / "weights.pt"
    shown = {"pixels": Darkness(power=weights), "noted": Warning_(noise=str(weights))}
    noted = {"warnings": {"noted": [f"Read {weights} <b>."]}}
    page = Page(
        page_of(
            Bunch(**comparison | noted),
            title="tiles",
            detectors=shown,
            versions={"skocc": "0.1"},
        )
    )
    assert "weights.pt" in page.text
    assert str(tmp_path) not in page.text
    assert tmp_path.parts[-1] not in page.text
    assert "Read weights.pt <b>." in page.text
    assert "skocc 0.1" in page.text


def test_without_anomalies_and_without_images():
    images = make_textures(24, size=16, random_state=0)
    detectors = {"dark": Darkness(2.0)}
    comparison = compare(detectors, images, n_examples=2, **FAST)
    page = Page(page_of(comparison, title="normal", detectors=detectors))
    assert "The anomalies are made from normal images" in page.text
    assert "AUROC of images*" in page.text
    rows = np.random.default_rng(0).normal(size=(60, 2))
    detectors = {"svm": OneClassSVM(), "forest": IsolationForest(random_state=0)}
    page = Page(page_of(compare(detectors, rows, **FAST), title="x", detectors=detectors))
    assert "Mass-volume area" in page.text
    assert "ROC" not in page.text
    failed = {"bad": Failing(MemoryError())}
    page = Page(page_of(compare(failed, images, **FAST), title="x", detectors=failed))
    assert "All detectors failed." in page.text
    assert not page.pictures


def test_files_are_named_by_their_last_two_parts(image_files):
    _, paths = image_files
    y = ["good"] * 9 + ["bad"] * 3
    detectors = {"svm": make_pipeline(Pixels(image_size=8), OneClassSVM())}
    comparison = compare(detectors, paths, y, n_examples=1, **FAST)
    page = Page(page_of(comparison, title="x", detectors=detectors))
    (worst,) = comparison.examples["svm"].misses
    assert f"{paths[worst].parent.name}/{paths[worst].name}, bad" in page.text
    assert str(paths[worst].parent) not in page.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file '/home/me/a/c.png' is bad", "file 'c.png' is bad"),
        (r"C:\Users\me\x.png", "x.png"),
        ("3 / 4 and s/he and a/b/c.png", "3 / 4 and s/he and a/b/c.png"),
    ],
)
def test_texts_name_no_folders(text, expected):
    assert _without_folders(text) == expected


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install \"skocc\[plot\]\""):
        check_matplotlib()
