"""Converters from the columns of known datasets to prompt, candidate demonstrations and solution."""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hpt_trl.common.formats import BOXED, END_OF_THINK, THINK
from hpt_trl.data.prompts import Prompt, clean_text, plain_message
from hpt_trl.data.refusal_report import Reason, RefusedError
from hpt_trl.verifier.verdicts import final_answer, last_boxed

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """
    One converted row.

    Args:
        prompt: a bare question, or a complete prompt (text or messages).
        demonstrations: candidate texts, the most promising one first; without any, the prompt is trained with RL only.
        solution: the gold answer.
        is_question: whether `prompt` is a bare question.
        solution_from_box: whether the solution was taken from the demonstration's box.
        extra: other columns to keep.
    """

    prompt: Prompt
    demonstrations: tuple[str, ...]
    solution: str
    is_question: bool = True
    solution_from_box: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


Converter = Callable[[Row], Example]


def answer_text(value: Any) -> str:
    r"""Convert a gold answer to text: 7.0 becomes "7", a list becomes one formula, a single `\boxed{}` is removed.

    Raises:
        RefusedError: if there is no answer, or it is not a text, a number or a list of these.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = [answer_text(part) for part in value]
        if len(parts) > 1:
            # As one formula, because in plain text math-verify takes only the last of several numbers as the answer.
            return f"${', '.join(part.strip('$') for part in parts)}$"
        value = parts[0] if parts else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise RefusedError(Reason.NO_SOLUTION)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # one missing value turns a column of integers into floats
    if not isinstance(value, str | int | float | Decimal):
        raise RefusedError(Reason.MALFORMED, f"a solution must be a text or a number, got {type(value).__name__}")
    text = clean_text(str(value)).strip()
    if not text or text.lower() == "nan":
        raise RefusedError(Reason.NO_SOLUTION)
    boxed = last_boxed(text) if text.count(BOXED) == 1 else None
    return boxed.strip() if boxed and boxed.strip() else text


def parse_prompt(value: Any) -> Prompt:
    """Convert a prompt to a text or to plain messages.

    Raises:
        RefusedError: if there is no prompt, or it is neither a text nor messages.
    """
    if _is_blank(value):
        raise RefusedError(Reason.NO_PROMPT)
    if isinstance(value, str):
        return clean_text(value)
    if not isinstance(value, Sequence):
        raise RefusedError(Reason.MALFORMED, f"a prompt must be a text or messages, got {type(value).__name__}")
    messages = [plain_message(message) for message in value]
    if not any(message["content"].strip() for message in messages if message["role"] != "system"):
        raise RefusedError(Reason.NO_PROMPT)
    return messages


def parse_demonstrations(value: Any) -> tuple[str, ...]:
    """Candidate demonstrations from a text, a message, a list of one message, or a list of texts, without blank ones.

    Raises:
        RefusedError: for several messages, or any other type.
    """
    if _is_blank(value):
        return ()
    if isinstance(value, str):
        return (clean_text(value),)
    if isinstance(value, Mapping):
        message = plain_message(value)
        if message["role"] != "assistant":
            raise RefusedError(Reason.MALFORMED, f"a demonstration must have role 'assistant', got {message['role']!r}")
        return parse_demonstrations(message["content"])
    if not isinstance(value, Sequence):
        raise RefusedError(Reason.MALFORMED, f"a demonstration must be a text or a message, got {type(value).__name__}")
    if sum(isinstance(part, Mapping) for part in value) > 1:
        raise RefusedError(
            Reason.MALFORMED, "a demonstration of several messages; pass such data directly to HPTTrainer"
        )
    return tuple(text for part in value for text in parse_demonstrations(part))


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value)) or value in ([], {}, ())


def _list_in(row: Row, name: str) -> Sequence[Any]:
    value = row.get(name)
    if _is_blank(value):
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RefusedError(Reason.MALFORMED, f"{name} must be a list, got {type(value).__name__}")
    return value


def _solution(row: Row, names: Sequence[str], demonstrations: Sequence[str]) -> tuple[str, bool]:
    """The first non-blank value of these columns, or the demonstration's box if the row has none of these columns.

    Returns:
        The solution, and whether it comes from the box.
    """
    values = [row[name] for name in names if name in row]
    if values:
        return answer_text(next((value for value in values if not _is_blank(value)), None)), False
    boxed = final_answer(demonstrations[0]) if demonstrations else None
    if not boxed or not boxed.strip():
        raise RefusedError(Reason.NO_SOLUTION, "there is no solution column, and no box in the demonstration")
    return boxed.strip(), True


def from_gsm8k(row: Row) -> Example:
    """GSM8K: calculator annotations `<<48/2=24>>` are removed, and the answer after `####` is boxed.

    Source: arXiv 2110.14168, appendix C.
    """
    text = row.get("answer")
    if _is_blank(text):
        raise RefusedError(Reason.NO_SOLUTION)
    reasoning, separator, answer = clean_text(str(text)).partition("####")
    if not separator:
        raise RefusedError(Reason.MALFORMED, "no '####' before the final answer, which GSM8K has")
    solution = answer_text(answer.replace(",", ""))
    reasoning = re.sub(r"<<[^<>]*>>", "", reasoning).strip()
    demonstration = f"{reasoning}\nThe final answer is {BOXED}{solution}}}."
    return Example(parse_prompt(row.get("question")), (demonstration,), solution)


def from_math(row: Row) -> Example:
    """MATH-style: `problem`, `solution` as the demonstration, and `answer`, or the box in `solution` without it."""
    demonstrations = parse_demonstrations(row.get("solution"))
    solution, from_box = _solution(row, ["answer"], demonstrations)
    return Example(parse_prompt(row.get("problem")), demonstrations, solution, solution_from_box=from_box)


def from_openr1(row: Row) -> Example:
    """OpenR1-Math: `generations`, starting with those that are complete and that the dataset marks as correct.

    Source: the card of open-r1/OpenR1-Math-220k.
    """
    names = ("generations", "correctness_math_verify", "is_reasoning_complete")
    generations, correct, complete = (_list_in(row, name) for name in names)

    def missing_flags(index: int) -> int:
        flags = (column[index] if index < len(column) else None for column in (correct, complete))
        return sum(flag is not True for flag in flags)

    ranked = [generations[index] for index in sorted(range(len(generations)), key=missing_flags)]
    return Example(parse_prompt(row.get("problem")), parse_demonstrations(ranked), answer_text(row.get("answer")))


def from_final_answer(row: Row) -> Example:
    """DeepMath (`r1_solution_1` to `_3`) and OlympiadBench (`solution`, a list): `question` and `final_answer`."""
    texts = [row.get(f"r1_solution_{number}") for number in (1, 2, 3)]
    demonstrations = parse_demonstrations([text for text in texts if not _is_blank(text)] or row.get("solution"))
    # DeepMath omits the opening tag, because R1's chat template writes it.
    with_tag = (f"{THINK}\n{text}" if END_OF_THINK in text and THINK not in text else text for text in demonstrations)
    return Example(parse_prompt(row.get("question")), tuple(with_tag), answer_text(row.get("final_answer")))


def from_verl(row: Row) -> Example:
    """verl's layout, such as LUFFY's data: `prompt`, `target` if present, and `reward_model.ground_truth`."""
    reward = row.get("reward_model") or {}
    if not isinstance(reward, Mapping):
        raise RefusedError(
            Reason.MALFORMED, f"reward_model must be a mapping with ground_truth, got {type(reward).__name__}"
        )
    demonstrations = parse_demonstrations(row.get("target"))
    return Example(parse_prompt(row.get("prompt")), demonstrations, answer_text(reward.get("ground_truth")), False)


def from_completion(row: Row) -> Example:
    """Prompt-completion rows; the solution is taken from its column, or from the completion's box without one."""
    demonstrations = parse_demonstrations(row.get("completion"))
    solution, from_box = _solution(row, ["solution", "answer", "final_answer", "ground_truth"], demonstrations)
    return Example(parse_prompt(row.get("prompt")), demonstrations, solution, False, from_box)


def from_messages(row: Row) -> Example:
    """A conversation: a final assistant message is the demonstration, and the messages before it are the prompt."""
    messages = _list_in(row, "messages" if "messages" in row else "conversations")
    if not messages:
        raise RefusedError(Reason.NO_PROMPT)
    *context, last = [plain_message(message) for message in messages]
    is_answer = last["role"] == "assistant"
    demonstrations = parse_demonstrations(last["content"]) if is_answer else ()
    prompt = parse_prompt(context if is_answer else [*context, last])
    solution, from_box = _solution(row, ["answer", "final_answer", "ground_truth", "solution"], demonstrations)
    return Example(prompt, demonstrations, solution, False, from_box)


def from_ready(row: Row) -> Example:
    """Rows in the training format: `prompt`, `demonstration`, `solution`; other columns are kept."""
    demonstrations = parse_demonstrations(row.get("demonstration"))
    solution, from_box = _solution(row, ["solution"], demonstrations)
    extra = {name: value for name, value in row.items() if name not in ("prompt", "demonstration", "solution")}
    return Example(parse_prompt(row.get("prompt")), demonstrations, solution, False, from_box, extra)


def from_named(prompt: str, demonstration: str | None, solution: str | None) -> Converter:
    """The converter for the columns that a user names; a text in the prompt column is a bare question."""

    def convert(row: Row) -> Example:
        demonstrations = parse_demonstrations(row.get(demonstration)) if demonstration else ()
        # A row without the named column has no solution; the box is no substitute for it.
        answer, from_box = _solution({solution: None, **row} if solution else {}, [solution or ""], demonstrations)
        return Example(parse_prompt(row.get(prompt)), demonstrations, answer, solution_from_box=from_box)

    return convert


def boxing(convert: Converter, pattern: str, column: str | None = None) -> Converter:
    r"""A converter for demonstrations that mark their answer in another way than by a box.

    The last match in the demonstration is replaced by a sentence that boxes it, as for GSM8K. A demonstration with a
    box of its own stays as it is.

    Args:
        convert: converts the row with the boxed answer.
        pattern: regular expression whose one group is the answer, such as `#### (.+)`.
        column: the column of the demonstration; None: where chat messages, completions and our own format have it.

    Raises:
        ValueError: if the pattern is not a regular expression with one group.
    """
    try:
        answer = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"solution_pattern is not a regular expression: {pattern!r}: {error}.") from None
    if answer.groups != 1:
        raise ValueError(
            f"solution_pattern must have one group in parentheses, the answer, such as '#### (.+)', got {pattern!r}."
        )
    columns = [column] if column else _DEMONSTRATIONS
    return lambda row: convert({**row, **{name: _boxed(row[name], answer) for name in columns if name in row}})


# The columns that hold a demonstration where the user names none.
_DEMONSTRATIONS = ("messages", "conversations", "completion", "demonstration", "target")


def _boxed(value: Any, answer: re.Pattern[str]) -> Any:
    """The value with its answer in a box: of a text, of the last of several messages, or of each of several texts."""
    if isinstance(value, str):
        match = None if BOXED in value else next(reversed(list(answer.finditer(value))), None)
        if match is None:
            return value
        sentence = f"The final answer is {BOXED}{match[1].strip()}}}."
        return f"{value[: match.start()].rstrip()}\n{sentence}{value[match.end() :].rstrip()}".lstrip()
    if isinstance(value, Mapping):
        return {**value, **{key: _boxed(value[key], answer) for key in ("content", "value") if key in value}}
    if not isinstance(value, Sequence):
        return value
    is_conversation = any(isinstance(part, Mapping) for part in value)
    kept = value[:-1] if is_conversation else []
    return [*kept, *(_boxed(part, answer) for part in value[len(kept) :])]


# The order matters, because the first entry whose columns are all present is used: OpenR1 also matches MATH and
# messages.
_KNOWN: tuple[tuple[frozenset[str], Converter], ...] = (
    (frozenset({"prompt", "reward_model"}), from_verl),
    (frozenset({"prompt", "completion"}), from_completion),
    (frozenset({"prompt", "solution"}), from_ready),
    (frozenset({"prompt", "demonstration"}), from_ready),
    (frozenset({"problem", "answer", "generations"}), from_openr1),
    (frozenset({"question", "final_answer"}), from_final_answer),
    (frozenset({"problem", "answer"}), from_math),
    (frozenset({"problem", "solution"}), from_math),
    (frozenset({"question", "answer"}), from_gsm8k),
    (frozenset({"messages"}), from_messages),
    (frozenset({"conversations"}), from_messages),
)


def is_ready(columns: Collection[str]) -> bool:
    """Whether rows with these columns have a `prompt` that can be trained on without conversion."""
    names = set(columns)
    layout = next(((required, convert) for required, convert in _KNOWN if required <= names), (names, from_ready))
    required, convert = layout
    return "prompt" in names and (convert is from_ready or "prompt" not in required)


def converter(columns: Collection[str]) -> Converter:
    """The converter for a dataset with these columns.

    Raises:
        ValueError: if no known dataset has these columns.
    """
    names = set(columns)
    for required, convert in _KNOWN:
        if required <= names:
            return convert
    known = "; ".join(", ".join(sorted(required)) for required, _ in _KNOWN)
    raise ValueError(
        f"No known dataset has the columns {sorted(names)}. Known layouts are: {known}. `hpt-trl prepare` converts "
        "any other dataset with --prompt_column, --demonstration_column and --solution_column."
    )


def named_converter(
    columns: Collection[str], prompt: str | None, demonstration: str | None, solution: str | None
) -> Converter:
    """The converter for the columns that a user names, or `converter(columns)` if the user names none.

    Raises:
        ValueError: if a name is not a column, or if the prompt or both other columns are not named.
    """
    named = [name for name in (prompt, demonstration, solution) if name]
    if not named:
        return converter(columns)
    unknown = sorted(set(named) - set(columns))
    if unknown:
        raise ValueError(f"The data has no column {', '.join(map(repr, unknown))}; it has {sorted(columns)}.")
    if not prompt or len(named) < 2:
        raise ValueError(
            "Name the prompt_column, and a demonstration_column, a solution_column or both; got "
            f"prompt_column={prompt!r}, demonstration_column={demonstration!r}, solution_column={solution!r}."
        )
    return from_named(prompt, demonstration, solution)
