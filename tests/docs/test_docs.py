"""The documentation holds: its examples run, its links lead somewhere, its titles are right."""

import doctest
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
THEORY = ROOT / "docs" / "explanation" / "theory.md"
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
# Examples that a page must at least have.
MIN_EXAMPLES = {"theory.md": 4, "applications.md": 20}
TITLES = (
    "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs",
    "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, "
    "and Fully Connected CRFs",
    "Rethinking Atrous Convolution for Semantic Image Segmentation",
    "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
)


def _prose(page: pathlib.Path) -> str:
    return FENCED.sub("", page.read_text())


def _links(page: pathlib.Path) -> list[str]:
    return [link for link in LINK.findall(_prose(page)) if "://" not in link]


def _anchors(page: pathlib.Path) -> set[str]:
    """Returns the anchors that GitHub gives to the headings."""
    headings = HEADING.findall(_prose(page))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_examples_print_the_output_on_the_page(page):
    results = doctest.testfile(str(page), module_relative=False)
    assert results.failed == 0
    assert results.attempted >= MIN_EXAMPLES.get(page.name, 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_images_lead_somewhere(page):
    missing = []
    for link in _links(page):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            missing.append(link)
    assert not missing


def test_every_page_is_looked_at():
    assert {"theory.md", "faq.md"} <= {page.name for page in DOCS}
    assert "../images/deeplab_v3plus.png" in _links(THEORY)
    assert "#what-is-void" in _links(ROOT / "docs" / "faq.md")


@pytest.mark.parametrize("title", TITLES)
def test_papers_have_their_titles(title):
    text = " ".join(THEORY.read_text().split())
    assert f'"{title}"' in text
