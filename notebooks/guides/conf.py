"""Sphinx configuration of the documentation site: `make docs`.

The whole repository is Sphinx's source folder, so README, guides and their figures link to one another by the same
relative paths as on a code host. Neither the build nor its pages download anything.
"""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from hpt_trl import __version__

ROOT = Path(__file__).parents[2]

project = "hpt_trl"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "README"
# The order in the navigation; guides that are not listed follow.
_GUIDES = [
    "how_it_works", "from_grpo", "options", "algorithms", "data", "metrics", "monitoring", "checkpointing", "hardware",
    "performance", "benchmarks", "comparison", "smollm2", "tutorials", "troubleshooting", "limitations", "security",
    "decisions", "glossary",
]  # fmt: skip
_GUIDES += sorted({page.stem for page in Path(__file__).parent.glob("*.md")} - {*_GUIDES})
_RESULTS = [
    "notebooks/results/miniature/report",
    "notebooks/results/few_demonstrations/report",
    "notebooks/results/map/report",
    "notebooks/results/smollm2_words/README",
]
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "notebooks/guides/**",
    *(f"{page}.md" for page in _RESULTS),
]
exclude_patterns = ["notebooks/guides/_*"]
# These contain no page; excluding them spares the walk through them.
exclude_patterns += [".*", "build", "dist", "runs", "data", "models", "hpt_trl", "tests", "configs"]
templates_path = [str(Path(__file__).parent / "_templates")]
smartquotes_action = "D"  # dashes only; quotes stay straight

html_theme = "furo"
html_title = f"hpt_trl {release}"
html_additional_pages = {"index": "index.html"}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False

myst_heading_anchors = 3

autodoc_default_options = {"members": True, "ignore-module-all": True}
autodoc_inherit_docstrings = False  # TRL's and transformers' methods are documented there
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

nitpicky = True
# Objects of other libraries have no page here; ours must have one.
nitpick_ignore_regex = [("py:.*", r"(?!hpt_trl\.).*")]

_CODE = re.compile(r"(?<![`:\w])`([^`]+)`(?!`)")
_LINK = re.compile(r"\[`~?([\w.]+)`\]")
_FUNCTION = re.compile(r"<function (\w+)>")
_FILE_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^):#]+)\)")

_VALUES = ("attribute", "data", "property")
_COLON = "\N{MODIFIER LETTER COLON}"

_CONTENTS = """

```{{toctree}}
:hidden:
:caption: {caption}
:glob:

{pages}
```
"""


def as_restructured_text(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Convert code and links as TRL's docstrings write them, `code` and [`HPTConfig`], to reStructuredText."""
    if dataclasses.is_dataclass(thing):
        _add_options(thing, lines)
    text = _CODE.sub(r"``\1``\\ ", _LINK.sub(_as_role, "\n".join(lines)))
    if what in _VALUES:
        # napoleon would take the text before the first colon for a type.
        text = text.replace(":", _COLON)
    lines[:] = text.split("\n")


def _add_options(options: type, lines: list[str]) -> None:
    """Append options that the docstring leaves out to its arguments, with their help texts."""
    if "Args:" not in lines:
        return
    start = lines.index("Args:") + 1
    end = next((row for row in range(start, len(lines)) if lines[row][:1].strip()), len(lines))
    documented = {line.split()[0].rstrip(":") for line in lines[start:end] if re.match(r" {4}\w", line)}
    declared = [field for field in dataclasses.fields(options) if field.name in options.__annotations__]
    helped = [field for field in declared if "help" in field.metadata and field.name not in documented]
    texts = [re.sub(r"(--\w+)", r"`\1`", f"    {field.name}: {field.metadata['help']}") for field in helped]
    lines[end:end] = [*texts, ""]


def restore_colons(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Restore, after napoleon, the colons that were hidden from it."""
    lines[:] = [line.replace(_COLON, ":") for line in lines]


def _as_role(link: re.Match[str]) -> str:
    *_, name = path = link[1].split(".")
    is_ours = len(path) == 1 or path[0] == "hpt_trl"
    return f":py:obj:`.{name}`\\ " if is_ours else f"``{name}``\\ "


def short_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """Show default functions by name, and leave out the hundreds of options of TRL's config classes."""
    if signature is None:
        return None
    return ("(output_dir, **options)", None) if len(signature) > 3000 else (_FUNCTION.sub(r"\1", signature), returns)


def skip_fields(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Skip what the signature shows already: fields of named tuples, and functions that are default values."""
    is_default = inspect.isfunction(thing) and thing.__name__ != name
    return True if is_default or type(thing).__name__ == "_tuplegetter" else None


def add_contents(app: Sphinx, document: str, source: list[str]) -> None:
    """Append the navigation to the README, where a code host does not show it, and unlink links to folders."""
    folder = (ROOT / document).parent
    source[0] = _FILE_LINK.sub(lambda link: link[1] if (folder / link[2]).is_dir() else link[0], source[0])
    if document == root_doc:
        source[0] += _CONTENTS.format(
            caption="Guides", pages="\n".join(f"notebooks/guides/{guide}" for guide in _GUIDES)
        )
        source[0] += _CONTENTS.format(caption="Results", pages="\n".join(_RESULTS))
        source[0] += _CONTENTS.format(caption="Reference", pages="notebooks/guides/api/index")
        source[0] += _CONTENTS.format(caption="Project", pages="CHANGELOG\nCONTRIBUTING")


def setup(app: Sphinx) -> None:
    """Connect the functions above; the first must run before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
    app.connect("autodoc-process-docstring", restore_colons, priority=600)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("source-read", add_contents)
    # A module that was removed from the lists in api/ must not leave its page behind.
    for page in (Path(__file__).parent / "api").glob("hpt_trl.*.rst"):
        page.unlink()
