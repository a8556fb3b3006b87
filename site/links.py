"""Check the links of built pages: each file and each anchor that a page names on this site must be there.

    python site/links.py FOLDER

Links to other sites are only counted; `make site LINKS=all` checks them too.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "id" or (tag == "a" and key == "name"):
                self.anchors.add(value or "")
            elif key in ("href", "src"):
                self.links.append(value or "")


def check(folder: Path) -> tuple[list[str], int, int]:
    """The broken links of a folder's pages, in words; the number of links within it, and to other sites."""
    folder = folder.resolve()
    static = folder / "_static"  # files of the theme, among them templates
    pages = {path: Page(path.read_text()) for path in sorted(folder.rglob("*.html")) if static not in path.parents}
    broken, inside, outside = [], 0, 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                outside += 1
                continue
            inside += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            where = f"{path.relative_to(folder)}: {link}"
            if not target.is_relative_to(folder) or not target.exists():
                broken.append(f"{where} is not there")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                broken.append(f"{where} is not an anchor of that page")
    return broken, inside, outside


def main(folder: str) -> int:
    """Print the broken links; return 1 if there are any, or if no page has links within the site."""
    broken, inside, outside = check(Path(folder))
    print("\n".join([*broken, f"{inside} links within the site, {len(broken)} broken; {outside} to other sites"]))
    return 1 if broken or not inside else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
