"""Check the built documentation: links, alternative texts, and what pages load.

``python docs/check_site.py FOLDER`` lists what is wrong in the HTML pages of a folder, and
fails if there is anything.
"""

import argparse
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself to show a page. Other links wait for a click.
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
LOADED_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch"}
CSS_URL = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")
IS_FILE_NAME = re.compile(r"\.(png|svg|jpe?g|gif|webp)$", re.IGNORECASE)


class Page(HTMLParser):
    """What one page of HTML offers and asks for.

    Parameters
    ----------
    text : str
        The page.
    """

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded, self.pictures = set(), [], [], []
        self._inside = ""  # the element whose text is not for readers
        self._class_before = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = {key: value or "" for key, value in attrs}
        self.anchors |= {attrs[key] for key in ("id", "name") if key in attrs}
        self._inside = tag if tag in ("script", "style") else ""
        relations = set(attrs.get("rel", "").split())
        if tag in LOADED and LOADED[tag] in attrs:
            self.loaded.append(attrs[LOADED[tag]])
        elif tag == "link" and relations & LOADED_RELATIONS:
            self.loaded.append(attrs["href"])
        elif "href" in attrs:
            self.links.append(attrs["href"])
        if tag == "img":
            # The title of an example stands beside its thumbnail, and says it all.
            is_thumbnail = "sphx-glr-thumbcontainer" in self._class_before
            self.pictures.append((attrs.get("src", ""), attrs.get("alt"), is_thumbnail))
        self._class_before = attrs.get("class", "")
        self.loaded += _urls_of_css(attrs.get("style", ""))

    def handle_data(self, data):
        if self._inside == "style":
            self.loaded += _urls_of_css(data)
        elif self._inside == "script" and "mathjax" in data.lower():
            self.loaded.append("MathJax, which formulas in MathML do not need")

    def handle_endtag(self, tag):
        self._inside = ""


def _urls_of_css(text):
    return [first or second for first, second in CSS_URL.findall(text)]


def problems(folder):
    """Return what is wrong in a folder of HTML pages.

    Parameters
    ----------
    folder : str or Path
        Folder that Sphinx's builder "html" has written.

    Returns
    -------
    found : list of str
        A line for each problem: the page, and what is wrong.
    """
    folder = Path(folder).resolve()
    paths = sorted(folder.rglob("*.html"))
    # The theme leaves templates among its styles.
    paths = [path for path in paths if "_static" not in path.parts]
    pages = {path: Page(path.read_text("utf-8")) for path in paths}
    found = [] if pages else [f"{folder}: holds no HTML page"]
    for path, page in pages.items():
        wrong = [_wrong_link(link, path, folder, pages) for link in page.links]
        wrong += [_wrong_resource(url, path, folder) for url in page.loaded]
        wrong += [_wrong_text(*picture) for picture in page.pictures]
        found += [f"{path.relative_to(folder)}: {line}" for line in wrong if line]
    for path in sorted(folder.rglob("*.css")):
        urls = _urls_of_css(path.read_text("utf-8"))
        wrong = [_wrong_resource(url, path, folder) for url in urls]
        found += [f"{path.relative_to(folder)}: {line}" for line in wrong if line]
    return list(dict.fromkeys(found))


def _is_external(url):
    parts = urlsplit(url)
    return bool(parts.scheme or parts.netloc)


def _target(url, path):
    """Return the file that a local URL means."""
    name = unquote(urlsplit(url).path)
    target = (path.parent / name).resolve() if name else path
    return target / "index.html" if target.is_dir() else target


def _wrong_link(url, path, folder, pages):
    if _is_external(url):
        return None
    target, anchor = _target(url, path), unquote(urlsplit(url).fragment)
    if not (target.is_relative_to(folder) and target.is_file()):
        return f"link to {url}, which is no file of the site"
    if anchor and target in pages and anchor not in pages[target].anchors:
        return f"link to {url}, where nothing has this anchor"
    return None


def _wrong_resource(url, path, folder):
    if url.startswith(("data:", "#")):
        return None
    if _is_external(url):
        return f"loads {url} from the network"
    target = _target(url, path)
    if not (target.is_relative_to(folder) and target.is_file()):
        return f"loads {url}, which is no file of the site"
    return None


def _wrong_text(source, text, is_thumbnail):
    if text is None or not (text.strip() or is_thumbnail):
        return f"picture {source} without an alternative text"
    words = re.findall(r"[a-z]+", text.lower())
    name = re.findall(r"[a-z]+", Path(unquote(source)).stem.lower())
    # sphinx-gallery names a figure without a title after its script.
    name = name[2:] if name[:2] == ["sphx", "glr"] else name
    if IS_FILE_NAME.search(text.strip()) or (words and words == name):
        return f"picture {source} with the name of a file for its text, {text!r}"
    return None


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    found = problems(parser.parse_args(argv).folder)
    if found:
        parser.exit(1, "\n".join([*found, f"{len(found)} problems\n"]))


if __name__ == "__main__":
    main()
