"""The columns of known data sets -> prompt, candidate demonstrations, solution."""

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
    One row, read.

    Args:
        prompt: a bare question, or a prompt as it came (text or messages).
        demonstrations: texts that may serve, the likeliest first; none: the prompt stays on RL.
        solution: the right answer.
        is_question: whether `prompt` is a bare question.
        solution_from_box: whether the solution is the demonstration's own answer.
        extra: further columns that are kept.
    """

    prompt: Prompt
    demonstrations: tuple[str, ...]
    solution: str
    is_question: bool = True
    solution_from_box: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


Converter = Callable[[Row], Example]


def answer_text(value: Any) -> str:
    r"""A right answer as text: numbers as one writes them, a list as one formula, a single `\boxed{}` opened.

    Raises:
        RefusedError: if there is none, or it is no text, number or list of these.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = [answer_text(part) for part in value]
        if len(parts) > 1:
            # As one formula: math-verify takes the last of several numbers in plain text for the answer.
            return f"${', '.join(part.strip('$') for part in parts)}$"
        value = parts[0] if parts else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise RefusedError(Reason.NO_SOLUTION)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # a whole column becomes float where one of its integers is missing
    if not isinstance(value, str | int | float | Decimal):
        raise RefusedError(Reason.MALFORMED, f"a solution must be a text or a number, got {type(value).__name__}")
    text = clean_text(str(value)).strip()
    if not text or text.lower() == "nan":
        raise RefusedError(Reason.NO_SOLUTION)
    boxed = last_boxed(text) if text.count(BOXED) == 1 else None
    return boxed.strip() if boxed and boxed.strip() else text


def prompt_of(value: Any) -> Prompt:
    """A prompt as text or as plain messages.

    Raises:
        RefusedError: if there is none, or it is neither.
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


def demonstrations_of(value: Any) -> tuple[str, ...]:
    """Candidate demonstrations in a text, a message, a list of one message, or a list of texts; blank ones left out.

    Raises:
        RefusedError: for several messages, or anything else.
    """
    if _is_blank(value):
        return ()
    if isinstance(value, str):
        return (clean_text(value),)
    if isinstance(value, Mapping):
        message = plain_message(value)
        if message["role"] != "assistant":
            raise RefusedError(Reason.MALFORMED, f"a demonstration spoken by {message['role']!r}")
        return demonstrations_of(message["content"])
    if not isinstance(value, Sequence):
        raise RefusedError(Reason.MALFORMED, f"a demonstration must be a text or a message, got {type(value).__name__}")
    if sum(isinstance(part, Mapping) for part in value) > 1:
        raise RefusedError(Reason.MALFORMED, "a demonstration of several messages; HPTTrainer takes those directly")
    return tuple(text for part in value for text in demonstrations_of(part))


def _is_blank(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value)) or value in ([], {}, ())


def _list_of(row: Row, name: str) -> Sequence[Any]:
    value = row.get(name)
    if _is_blank(value):
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise RefusedError(Reason.MALFORMED, f"{name} must be a list, got {type(value).__name__}")
    return value


def _solution(row: Row, names: Sequence[str], demonstrations: Sequence[str]) -> tuple[str, bool]:
    """The first filled of these columns, or the demonstration's box if the row has none of them; and which it was."""
    columns = [row[name] for name in names if name in row]
    if columns:
        return answer_text(next((value for value in columns if not _is_blank(value)), None)), False
    boxed = final_answer(demonstrations[0]) if demonstrations else None
    if not boxed or not boxed.strip():
        raise RefusedError(Reason.NO_SOLUTION, "there is no column for it, and no box in the demonstration")
    return boxed.strip(), True


def from_gsm8k(row: Row) -> Example:
    """GSM8K: calculator marks `<<48/2=24>>` stripped, the answer after `####` boxed.

    Source: arXiv 2110.14168, appendix C.
    """
    text = row.get("answer")
    if _is_blank(text):
        raise RefusedError(Reason.NO_SOLUTION)
    reasoning, mark, answer = clean_text(str(text)).partition("####")
    if not mark:
        raise RefusedError(Reason.MALFORMED, "no '####' before a final answer, as GSM8K has")
    solution = answer_text(answer.replace(",", ""))
    reasoning = re.sub(r"<<[^<>]*>>", "", reasoning).strip()
    demonstration = f"{reasoning}\nThe final answer is {BOXED}{solution}}}."
    return Example(prompt_of(row.get("question")), (demonstration,), solution)


def from_math(row: Row) -> Example:
    """MATH-style: `problem`, `solution` as the demonstration, and `answer` or else the solution's box."""
    demonstrations = demonstrations_of(row.get("solution"))
    solution, from_box = _solution(row, ["answer"], demonstrations)
    return Example(prompt_of(row.get("problem")), demonstrations, solution, solution_from_box=from_box)


def from_openr1(row: Row) -> Example:
    """OpenR1-Math: `generations`, those first that finished and that its own verification found right.

    Source: the card of open-r1/OpenR1-Math-220k.
    """
    names = ("generations", "correctness_math_verify", "is_reasoning_complete")
    generations, right, complete = (_list_of(row, name) for name in names)

    def doubt(index: int) -> int:
        flags = (flag[index] if index < len(flag) else None for flag in (right, complete))
        return sum(flag is not True for flag in flags)

    ranked = [generations[index] for index in sorted(range(len(generations)), key=doubt)]
    return Example(prompt_of(row.get("problem")), demonstrations_of(ranked), answer_text(row.get("answer")))


def from_final_answer(row: Row) -> Example:
    """DeepMath (`r1_solution_1` to `_3`) and OlympiadBench (`solution`, a list): `question` and `final_answer`."""
    texts = [row.get(f"r1_solution_{number}") for number in (1, 2, 3)]
    demonstrations = demonstrations_of([text for text in texts if not _is_blank(text)] or row.get("solution"))
    # DeepMath leaves out the opening tag, which R1's own template writes.
    opened = (f"{THINK}\n{text}" if END_OF_THINK in text and THINK not in text else text for text in demonstrations)
    return Example(prompt_of(row.get("question")), tuple(opened), answer_text(row.get("final_answer")))


def from_verl(row: Row) -> Example:
    """LUFFY's data and others in verl's layout: `prompt`, `target` if there is one, `reward_model.ground_truth`."""
    reward = row.get("reward_model") or {}
    if not isinstance(reward, Mapping):
        raise RefusedError(Reason.MALFORMED, f"reward_model must hold ground_truth, got {type(reward).__name__}")
    demonstrations = demonstrations_of(row.get("target"))
    return Example(prompt_of(row.get("prompt")), demonstrations, answer_text(reward.get("ground_truth")), False)


def from_completion(row: Row) -> Example:
    """Prompt-completion rows; the solution from a column of its own, or from the completion's box."""
    demonstrations = demonstrations_of(row.get("completion"))
    solution, from_box = _solution(row, ["solution", "answer", "final_answer", "ground_truth"], demonstrations)
    return Example(prompt_of(row.get("prompt")), demonstrations, solution, False, from_box)


def from_messages(row: Row) -> Example:
    """A conversation: its last assistant message is the demonstration, all before it the prompt."""
    messages = _list_of(row, "messages" if "messages" in row else "conversations")
    if not messages:
        raise RefusedError(Reason.NO_PROMPT)
    *before, last = [plain_message(message) for message in messages]
    is_answer = last["role"] == "assistant"
    demonstrations = demonstrations_of(last["content"]) if is_answer else ()
    prompt = prompt_of(before if is_answer else [*before, last])
    solution, from_box = _solution(row, ["answer", "final_answer", "ground_truth", "solution"], demonstrations)
    return Example(prompt, demonstrations, solution, False, from_box)


def from_ready(row: Row) -> Example:
    """Rows that are ready: `prompt`, `demonstration`, `solution`; other columns are kept."""
    demonstrations = demonstrations_of(row.get("demonstration"))
    solution, from_box = _solution(row, ["solution"], demonstrations)
    extra = {name: value for name, value in row.items() if name not in ("prompt", "demonstration", "solution")}
    return Example(prompt_of(row.get("prompt")), demonstrations, solution, False, from_box, extra)


def from_named(prompt: str, demonstration: str | None, solution: str | None) -> Converter:
    """The converter for columns a user names; a text in the prompt column is a bare question."""

    def convert(row: Row) -> Example:
        demonstrations = demonstrations_of(row.get(demonstration)) if demonstration else ()
        # A row that lacks the column a user named has no solution: its box is not asked.
        answer, from_box = _solution({solution: None, **row} if solution else {}, [solution or ""], demonstrations)
        return Example(prompt_of(row.get(prompt)), demonstrations, answer, solution_from_box=from_box)

    return convert


# The first whose columns are all there is taken: OpenR1 has MATH's columns, and messages too.
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
    """Whether rows with these columns have a `prompt` to train on as they are, and not in another set's layout."""
    have = set(columns)
    needed, convert = next(((needed, convert) for needed, convert in _KNOWN if needed <= have), (have, from_ready))
    return "prompt" in have and (convert is from_ready or "prompt" not in needed)


def converter(columns: Collection[str]) -> Converter:
    """The conversion for a data set with these columns.

    Raises:
        ValueError: for columns of no known data set.
    """
    have = set(columns)
    for needed, convert in _KNOWN:
        if needed <= have:
            return convert
    known = "; ".join(", ".join(sorted(needed)) for needed, _ in _KNOWN)
    raise ValueError(
        f"No known data set has the columns {sorted(have)}. Known are those with: {known}. "
        "`hpt-trl prepare` takes any other with --prompt_column, --demonstration_column and --solution_column."
    )


def named_converter(
    columns: Collection[str], prompt: str | None, demonstration: str | None, solution: str | None
) -> Converter:
    """The conversion for the columns a user names, or for the data set these columns are known from if none is named.

    Raises:
        ValueError: for a name that is no column, or names that leave out the prompt or both others.
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
