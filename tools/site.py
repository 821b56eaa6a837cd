"""What the site shows from outside docs/: sections of the README, examples, and the project's own pages.

A hook of MkDocs. Links are written as they work in the repository, and are led to where the site has the same.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

_ROOT: Final = Path(__file__).resolve().parent.parent
_INCLUDE: Final = re.compile(r"^<!-- README: (.+) -->$", re.MULTILINE)
_LINK: Final = re.compile(r"^```.*?^```$|\]\((?!\w+:|#)([^)#\s]+)", re.DOTALL | re.MULTILINE)
"""A link within the repository; or a listing, where nothing is one."""
_ROLE: Final = re.compile(r":[a-z]+:(?=<code>)")
_RECORDS: Final = "adr"

_PAGES: Final = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
    "examples/README.md": "examples/README.md",
} | {f"examples/{path.name}": f"examples/{path.stem}.md" for path in sorted((_ROOT / "examples").glob("*.py"))}
"""Pages of the site by the file of the repository that they show."""
_SOURCES: Final = {page: file for file, page in _PAGES.items()}
_INSTEAD: Final = {"src/aetherflow/telemetry/conventions.py": "telemetry.md", "README.md": "index.md"}
"""Pages to link to instead of a file that is not shown as such."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every decision record into the navigation, and have headings in Chinese linked to as GitHub does."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    records = sorted(path.name for path in Path(config.docs_dir, _RECORDS).glob("[0-9]*.md"))
    project: list[Any] = next(entry["Project"] for entry in config.nav or () if "Project" in entry)
    project.append({"Decision records": [f"{_RECORDS}/README.md", *(f"{_RECORDS}/{name}" for name in records)]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of files outside docs/."""
    for file, page in _PAGES.items():
        text = (_ROOT / file).read_text("utf-8")
        if not file.endswith(".md"):
            language = "python" if file.endswith(".py") else "text"
            text = f"# {posixpath.basename(file)}\n\n```{language}\n{text}```\n"
        files.append(File.generated(config, page, content=text))
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


def _relinked(markdown: str, source: str, uri: str) -> str:
    def lead(found: re.Match[str]) -> str:
        if not found[1]:
            return found[0]
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        target = _PAGES.get(file) or _INSTEAD.get(file) or file.removeprefix("docs/")
        return f"]({posixpath.relpath(target, posixpath.dirname(uri) or '.')}"

    return _LINK.sub(lead, markdown)
