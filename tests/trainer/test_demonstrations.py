import pytest
from datasets import Dataset
from PIL import Image
from tokenizers import Tokenizer, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hpt_trl.trainer.demonstrations import DemonstrationTokenizer, prompt_identifier, truncated

PROMPT = [{"role": "user", "content": "2+2"}]


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def trained_text(tokenizer, tokens):
    return tokenizer.decode([token for token, trained in zip(tokens.ids, tokens.mask) if trained])


def tokenized(tokenizer, demonstration, prompt=PROMPT, opened="<|assistant|>", stop_ids=None):
    tokenize = DemonstrationTokenizer(tokenizer, stop_ids or [tokenizer.eos_token_id], {})
    return tokenize(prompt, demonstration, tokenizer(opened)["input_ids"])


@pytest.mark.parametrize(
    "form",
    [
        "four",
        {"role": "assistant", "content": "four"},
        [{"role": "assistant", "content": "four"}],
        [{"role": "assistant", "content": [{"type": "text", "text": "fo"}, {"type": "text", "text": "ur"}]}],
    ],
)
def test_every_form_of_one_turn_is_its_text_and_eos(tokenizer, form):
    tokens = tokenized(tokenizer, form)
    assert tokenizer.decode(tokens.ids) == "four<eos>"
    assert tokens.mask == [1] * 5


def test_keys_that_datasets_fills_with_none_do_not_matter(tokenizer):
    rows = Dataset.from_list(
        [
            {"demonstration": [{"role": "assistant", "content": "four"}]},
            {"demonstration": [{"role": "assistant", "content": "x", "name": "y"}]},
        ]
    )
    assert tokenizer.decode(tokenized(tokenizer, rows[0]["demonstration"]).ids) == "four<eos>"


@pytest.mark.parametrize(
    ("tail", "demonstration", "expected"),
    [
        ("<think>\n", "<think>\nhm</think>4", "hm</think>4<eos>"),
        ("<think>", "<think>hm</think>4", "hm</think>4<eos>"),
        ("<think>\n", "<think>hm</think>4", "hm</think>4<eos>"),
        ("", "<think>hm</think>4", "<think>hm</think>4<eos>"),
        ("<think>\n", "hm</think>4", "hm</think>4<eos>"),
        ("", "4<eos>", "4<eos>"),
        # A demonstration without thinking ends the thought that the prompt began.
        ("<think>\n", "4", "\n</think>\n\n4<eos>"),
        # Thinking is off: the prompt has opened and closed it.
        ("<think>\n\n</think>\n\n", "<think>hm</think>\n\n4", "4<eos>"),
    ],
)
@pytest.mark.parametrize("is_chat", [True, False])
def test_a_think_that_the_prompt_opened_is_not_repeated(tokenizer, is_chat, tail, demonstration, expected):
    prompt, opened = (PROMPT, f"<|assistant|>{tail}") if is_chat else (f"2+2{tail}",) * 2
    assert tokenizer.decode(tokenized(tokenizer, demonstration, prompt=prompt, opened=opened).ids) == expected


def sentencepiece_tokenizer():
    """As Llama 2's: a space is written before every text, and line breaks are tokens like others."""
    tokens = ["<eos>", "<unk>", "▁", "\n", "2", "+", "3", "=", "?", "5", "=="]
    core = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, [("=", "=")], unk_token="<unk>"))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="<unk>")


@pytest.mark.parametrize(
    ("prompt", "demonstration", "expected"),
    [
        # The text is encoded with its prompt: no space is written before it.
        ("2+3=?\n", "5", ["5", "<eos>"]),
        ("2+3=?\n", "\n5", ["\n", "5", "<eos>"]),
        # The two would share a token, but the policy continues the prompt as it was encoded.
        ("2+3=", "=5", ["=", "5", "<eos>"]),
    ],
)
def test_a_text_continues_its_prompt(prompt, demonstration, expected):
    tokenizer = sentencepiece_tokenizer()
    prompt_ids = tokenizer(prompt)["input_ids"]
    tokens = DemonstrationTokenizer(tokenizer, [tokenizer.eos_token_id], {})(prompt, demonstration, prompt_ids)
    assert tokenizer.convert_ids_to_tokens(tokens.ids) == expected


def test_a_conversation_trains_on_the_assistants_turns_only(tokenizer):
    turns = [
        {"role": "assistant", "content": "look"},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "four"},
    ]
    tokens = tokenized(tokenizer, turns)
    assert tokenizer.decode(tokens.ids) == "look<eos>\n<|tool|>4<eos>\n<|assistant|>four<eos>"
    assert trained_text(tokenizer, tokens) == "look<eos>four<eos>"


def test_a_turn_ends_where_generation_stops(tokenizer):
    """A template may end its turns with a token that is not the tokenizer's EOS, as Gemma's does."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    tokenizer.chat_template = tokenizer.chat_template.replace("<eos>", "<end>")
    end = tokenizer.convert_tokens_to_ids("<end>")
    turns = [{"role": "assistant", "content": "look"}, {"role": "assistant", "content": "four"}]
    both = [tokenizer.eos_token_id, end]
    assert tokenizer.decode(tokenized(tokenizer, "four", stop_ids=both).ids) == "four<end>"
    assert trained_text(tokenizer, tokenized(tokenizer, turns, stop_ids=both)) == "look<end>four<end>"
    # Where generation does not stop at it, the demonstration must not either, as with Qwen2.5's base models.
    assert tokenizer.decode(tokenized(tokenizer, "four").ids) == "four<eos>"
    assert trained_text(tokenizer, tokenized(tokenizer, turns)) == "look<end>four<eos>"
    # A prompt that is a text has no turns.
    assert tokenizer.decode(tokenized(tokenizer, "four", prompt="2+2", stop_ids=both).ids) == "four<eos>"


def test_anything_but_text_is_refused(tokenizer):
    picture = [{"role": "assistant", "content": [{"type": "image", "image": "x"}]}]
    with pytest.raises(ValueError, match=r"parts of type \['image'\]"):
        tokenized(tokenizer, picture)


def test_a_conversation_must_end_with_the_assistant(tokenizer):
    with pytest.raises(ValueError, match="must end with the assistant's"):
        tokenized(tokenizer, [{"role": "assistant", "content": "look"}, {"role": "tool", "content": "4"}])


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer):
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    turns = [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(ValueError, match="rewrites earlier turns"):
        tokenized(tokenizer, turns)


def test_a_cut_demonstration_has_no_eos(tokenizer):
    tokens = tokenized(tokenizer, "four")
    assert not truncated(tokens, 5).was_cut
    assert tokenizer.decode(truncated(tokens, 4).ids) == "four"
    assert truncated(tokens, 4).was_cut


def test_prompts_are_named_by_their_column_or_their_text():
    assert prompt_identifier({"prompt": "a", "prompt_id": 7}) == "7"
    assert prompt_identifier({"prompt": "a"}) == prompt_identifier({"prompt": "a", "solution": "1"})
    assert prompt_identifier({"prompt": "a"}) != prompt_identifier({"prompt": "b"})


def test_a_prompts_identifier_does_not_depend_on_the_order_of_a_messages_keys():
    one, other = {"role": "user", "content": "a"}, {"content": "a", "role": "user"}
    assert prompt_identifier({"prompt": [one]}) == prompt_identifier({"prompt": [other]})


def test_a_template_that_raises_refuses_the_demonstration(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
        "{{ m['content'] }}<eos>\n{% endfor %}"
    )
    turns = [{"role": "tool", "content": "4"}, {"role": "assistant", "content": "four"}]
    with pytest.raises(ValueError, match="no tools here"):
        tokenized(tokenizer, turns)


def test_the_images_of_a_prompt_are_a_part_of_its_identifier():
    def identifier(color, **columns):
        return prompt_identifier({"prompt": "a", **columns, "image": Image.new("RGB", (2, 2), color)})

    assert identifier("red") == identifier("red", solution="1") != identifier("blue")
    assert identifier("red") != prompt_identifier({"prompt": "a", "image": None}) == prompt_identifier({"prompt": "a"})
