"""What the site shows from outside docs/: sections of the README, the project's own pages, and files linked to.

A hook of MkDocs. Links are written as they work in the repository, and are led to where the site has the same.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

_ROOT: Final = Path(__file__).resolve().parent.parent
_INCLUDE: Final = re.compile(r"^<!-- README: (.+) -->$", re.MULTILINE)
_LINK: Final = re.compile(r"^```.*?^```$|\]\((?!\w+:|#)([^)#\s]+)", re.DOTALL | re.MULTILINE)
"""A link within the repository; or a listing, where nothing is one."""
_ROLE: Final = re.compile(r":[a-z]+:(?=<code>)")
_PAGES: Final = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
    "README.md": "index.md",
    "examples/README.md": "examples/README.md",
}
"""Pages of the site for files outside docs/; any other file that a page links to is shown as a listing."""
_SOURCES: Final = {page: file for file, page in _PAGES.items() if file != "README.md"}
_LISTING: Final = """\
---
search:
  exclude: true
---
# {name}

```{language}
{text}```
"""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: every decision record, and pages that nobody has placed, stand in it by themselves."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")  # as on GitHub, in Chinese too
    sections: dict[str, list[Any]] = {title: below for entry in config.nav or () for title, below in entry.items()}
    docs = Path(config.docs_dir)
    records = sorted(path.relative_to(docs).as_posix() for path in docs.glob("adr/[0-9]*.md"))
    sections["Project"].append({"Decision records": ["adr/README.md", *records]})
    placed = str(config.nav)
    sections["How to"].extend(sorted(path.name for path in docs.glob("*.md") if f"'{path.name}'" not in placed))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of files outside docs/."""
    for page, file in _SOURCES.items():
        text = (_ROOT / file).read_text("utf-8")
        files.append(File.generated(config, page, content=text if file.endswith(".md") else _listing(file)))
    pages = [*_SOURCES.values(), *(path.relative_to(_ROOT).as_posix() for path in Path(config.docs_dir).rglob("*.md"))]
    linked = {target for page in pages for target in _targets(page)}
    for file in sorted(linked - set(_PAGES)):
        if not file.startswith("docs/") and (_ROOT / file).is_file():
            shown = File.generated(config, f"{file}.md", content=_listing(file), inclusion=InclusionLevel.NOT_IN_NAV)
            files.append(shown)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Include sections of the README where a comment names them, and lead links to where the site has the same."""
    uri = page.file.src_uri
    markdown = _relinked(markdown, _SOURCES.get(uri, f"docs/{uri}"), uri)
    return _INCLUDE.sub(lambda found: _relinked(readme_section(found[1]), "README.md", uri), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take away the roles in docstrings, as in :meth:`Node.run`, which only Sphinx would make links of."""
    return _ROLE.sub("", html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Say of a Chinese page that it is one."""
    return output.replace('<html lang="en"', '<html lang="zh-Hans"', 1) if ".zh." in page.file.src_uri else output


def readme_section(title: str) -> str:
    """Return a section of the README with its heading, or what is above the first one for "Introduction".

    Args:
        title: The heading's text.

    Returns:
        The Markdown of the section.

    Raises:
        PluginError: If there is no such section.
    """
    introduction, *sections = re.split(r"^(?=## )", (_ROOT / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    known = {section.partition("\n")[0].removeprefix("## "): section for section in sections}
    known["Introduction"] = introduction.partition("\n")[2]
    if title not in known:
        raise PluginError(f"README.md has no section {title!r}; there are: {', '.join(known)}")
    return known[title].strip()


def _targets(source: str) -> Iterator[str]:
    text = (_ROOT / source).read_text("utf-8")
    return (_resolved(source, found[1]) for found in _LINK.finditer(text) if found[1])


def _resolved(source: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _listing(file: str) -> str:
    path = _ROOT / file
    return _LISTING.format(name=path.name, language=path.suffix[1:] or "text", text=path.read_text("utf-8"))


def _relinked(markdown: str, source: str, uri: str) -> str:
    def lead(found: re.Match[str]) -> str:
        if not found[1]:
            return found[0]
        file = _resolved(source, found[1])
        inside = file.removeprefix("docs/")
        target = _PAGES.get(file, inside if inside != file else f"{file}.md")
        return f"]({posixpath.relpath(target, posixpath.dirname(uri) or '.')}"

    return _LINK.sub(lead, markdown)
