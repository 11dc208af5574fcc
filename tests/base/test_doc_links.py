"""The question mark in the HTML representation of an estimator."""

import importlib.metadata
from email.message import Message

import pytest
from sklearn.base import BaseEstimator
from sklearn.svm import OneClassSVM

import skocc
import skocc.feature_extraction
import skocc.model_selection
from skocc._base import doc_links
from skocc.model_selection import (
    DetectorEnsemble,
    NormalOnly,
    ThresholdTuner,
    TiledDetector,
)
from tests.test_public_api import listed_names

PUBLIC = {
    f"{module}.{name}": getattr(package, name)
    for module, package in [
        ("skocc", skocc),
        ("skocc.feature_extraction", skocc.feature_extraction),
        ("skocc.model_selection", skocc.model_selection),
    ]
    for name in package.__all__
    if isinstance(getattr(package, name), type)
    and issubclass(getattr(package, name), BaseEstimator)
}


def make(estimator_class):
    if estimator_class is DetectorEnsemble:
        return DetectorEnsemble([("svm", OneClassSVM())])
    if estimator_class in (NormalOnly, ThresholdTuner, TiledDetector):
        return estimator_class(OneClassSVM())
    return estimator_class()


@pytest.fixture
def project_urls(monkeypatch):
    """A function that sets the URLs with which skocc was installed."""

    def set_urls(*urls):
        found = Message()
        for url in urls:
            found["Project-URL"] = url
        monkeypatch.setattr(doc_links, "metadata", {"skocc": found}.__getitem__)
        doc_links.documentation_url.cache_clear()

    yield set_urls
    doc_links.documentation_url.cache_clear()


def test_there_are_estimators_to_be_tested():
    assert len(PUBLIC) >= len(skocc.DETECTORS) + 6


@pytest.mark.parametrize("name", PUBLIC)
def test_links_lead_to_pages_of_the_reference(name, project_urls):
    """Sphinx's autosummary writes a page for each name that docs/reference lists."""
    project_urls("Homepage, https://home.invalid", "Documentation, https://docs.invalid/1/")
    module, _, class_name = name.rpartition(".")
    assert class_name in listed_names()[module]
    estimator = make(PUBLIC[name])
    link = f"https://docs.invalid/1/generated/{name}.html"
    assert estimator._get_doc_link() == link
    assert f'href="{link}"' in estimator._repr_html_()


def test_parts_link_to_their_own_pages(project_urls):
    project_urls("Documentation, https://docs.invalid")
    ensemble = DetectorEnsemble([("svm", OneClassSVM()), ("deep", skocc.DeepSVDD())])
    html = ensemble._repr_html_()
    for page in ["skocc.model_selection.DetectorEnsemble", "skocc.DeepSVDD"]:
        assert f'href="https://docs.invalid/generated/{page}.html"' in html
    assert "sklearn.svm.OneClassSVM.html" in html


@pytest.mark.parametrize("urls", [[], ["Homepage, https://home.invalid"]])
def test_no_link_where_no_page_is_known(urls, project_urls):
    project_urls(*urls)
    assert skocc.DeepSVDD()._get_doc_link() == ""


def test_no_link_where_skocc_is_not_installed(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doc_links, "metadata", missing)
    doc_links.documentation_url.cache_clear()
    assert skocc.DeepSVDD()._get_doc_link() == ""
    doc_links.documentation_url.cache_clear()


def test_a_class_of_a_user_does_not_link_to_pages_of_skocc(project_urls):
    project_urls("Documentation, https://docs.invalid")

    class MySVDD(skocc.DeepSVDD):
        pass

    assert MySVDD()._get_doc_link() == ""
