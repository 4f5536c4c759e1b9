"""Build hook: the package's addresses and its README, whose relative links become absolute."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

IMAGES = (".png", ".svg", ".gif")


def absolute_links(text: str, repository: str, revision: str) -> str:
    """Markdown whose relative links lead to a revision of the repository; images are linked as files."""

    def absolute(match: re.Match[str]) -> str:
        target = match[1]
        kind = "raw" if target.endswith(IMAGES) else "blob"
        return f"]({repository}/{kind}/{revision}/{target})"

    return re.sub(r"\]\((?!\w+:|#)([^)\s]+)\)", absolute, text)


class CustomMetadataHook(MetadataHookInterface):
    """Fills `readme` and `urls` from the address in pyproject.toml."""

    def update(self, metadata: dict[str, Any]) -> None:
        repository = self.config["repository"]
        revision = f"v{metadata['version']}" if "version" in metadata else "main"
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": absolute_links(text, repository, revision),
        }
        metadata["urls"] = {
            "Repository": repository,
            "Documentation": f"{repository}/tree/{revision}/notebooks/guides",
            "Changelog": f"{repository}/blob/{revision}/CHANGELOG.md",
            "Issues": f"{repository}/issues",
            "Paper": "https://arxiv.org/abs/2509.04419",
        }
