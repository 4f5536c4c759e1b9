"""Foreign texts stay texts: a parser of Markdown finds them as they were, and matplotlib draws them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from hpt_trl.common.escaping import code_block, code_span, encodable, figure_text, markdown_text, one_line

PARSER = MarkdownIt("gfm-like", {"html": True, "linkify": False})
HOSTILE = [
    "a|b", "`code`", "``", "a`", "<script>alert(1)</script>", "line\nbreak", "$x$", "$(date)_$USER",
    "[x](javascript:alert(1))", "![x](http://a/b.png)", "<!-- x", "*a* _b_ __c__ ~~d~~", "&lt;", "\\|", "\\", "# a #",
    "https://example.org", "```\nfence\n```", "\ud800", "\x1b[31m", "my_name_1", "{{ 7 * 7 }}", "a\\`b", "|", "_", "%s",
]  # fmt: skip
texts = st.text(max_size=30) | st.lists(st.sampled_from(HOSTILE), max_size=3).map("".join)


def inline(text):
    """The inline tokens of a text that must be a single block."""
    (token,) = [token for token in PARSER.parse(text) if token.type == "inline"]
    return token.children


@given(texts)
def test_a_markdown_text_is_read_back_as_it_was(text):
    shown = one_line(text)
    tokens = inline(f"x{markdown_text(text)}x")
    assert {token.type for token in tokens} == {"text"}
    assert "".join(token.content for token in tokens) == f"x{shown}x"


@given(texts)
def test_a_cell_of_a_table_is_read_back_as_it_was(text):
    table = PARSER.parse(f"| a | b |\n| --- | --- |\n| x{markdown_text(text)}x | 2 |\n")
    cells = [token.children for token in table if token.type == "inline"]
    assert ["".join(token.content for token in cell) for cell in cells] == ["a", "b", f"x{one_line(text)}x", "2"]
    assert {token.type for cell in cells for token in cell} == {"text"}


@given(texts)
def test_a_code_span_is_read_back_as_it_was(text):
    shown = one_line(text)
    if shown:
        assert [(token.type, token.content) for token in inline(f"x {code_span(text)}")] == [
            ("text", "x "),
            ("code_inline", shown),
        ]


@given(texts)
def test_a_code_block_is_read_back_as_it_was(text):
    lines = encodable(text.replace("\r", "").replace("\0", ""))
    blocks = PARSER.parse(f"before\n\n{code_block(lines, 'bash')}\n\nafter\n")
    (block,) = [token for token in blocks if token.type == "fence"]
    assert (block.info, block.content) == ("bash", f"{lines}\n")
    assert blocks[-2].content == "after"


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("text", HOSTILE)
def test_a_figure_draws_any_text_as_it_is(text, tmp_path):
    figure = Figure()
    drawn = figure.suptitle(figure_text(text))
    figure.savefig(tmp_path / "figure.png")
    # What matplotlib draws of it, and whether it takes it for a formula.
    assert drawn._preprocess_math(drawn.get_text()) == (one_line(text), False)


def test_what_cannot_be_encoded_is_written_as_its_escape():
    assert encodable("caf\udce9").encode() == b"caf\\udce9"
    assert one_line(" a\tb\nc  d\u202e\x07 ") == "a b c d\\u202e\\x07"
