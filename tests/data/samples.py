"""Handmade rows in the real column layout of each known dataset; a demonstration is correct unless noted."""

THOUGHT = "<think>\n6 times 7, I know this.\n</think>\n\n6 * 7 = \\boxed{42}."

# Elliott/Openr1-Math-46k-8192
LUFFY = [
    {
        "data_source": "openr1",
        "prompt": [
            {"content": "Think first, then put the answer in \\boxed{}.", "role": "system"},
            {"content": "What is $6 \\cdot 7$?", "role": "user"},
        ],
        "target": [{"content": THOUGHT, "role": "assistant"}],
        "ability": "math",
        "reward_model": {"ground_truth": "42", "style": "rule"},
        "extra_info": {"index": 0, "split": "train"},
    }
]

# openai/gsm8k
GSM8K = [
    {
        "question": "Tina buys 3 pens for $400 each. What does she pay?",
        "answer": "She pays 3*400=$<<3*400=1200>>1200.\n#### 1,200",
    }
]

# open-r1/OpenR1-Math-220k: the first generation is wrong, the second truncated, the third correct
OPENR1 = [
    {
        "problem": "What is $6 \\cdot 7$?",
        "solution": "$6 \\cdot 7 = 42$, by the table.",
        "answer": "42",
        "problem_type": "Algebra",
        "question_type": "math-word-problem",
        "source": "olympiads",
        "uuid": "8c1b",
        "is_reasoning_complete": [True, False, True],
        "generations": ["<think>\nHm.\n</think>\n\n\\boxed{41}", "<think>\nSix times", THOUGHT],
        "correctness_math_verify": [False, False, True],
        "correctness_llama": None,
        "finish_reasons": None,
        "correctness_count": 1,
        "messages": [{"role": "user", "content": "What is $6 \\cdot 7$?"}, {"role": "assistant", "content": THOUGHT}],
    }
]

# zwhe99/DeepMath-103K: no opening tag; the first solution is wrong
DEEPMATH = [
    {
        "question": "What is $6 \\cdot 7$?",
        "final_answer": "42",
        "difficulty": 1.0,
        "topic": "Arithmetic",
        "r1_solution_1": "Hm.\n</think>\n\n\\boxed{41}",
        "r1_solution_2": THOUGHT.removeprefix("<think>\n"),
        "r1_solution_3": THOUGHT.removeprefix("<think>\n"),
    }
]

# Hothan/OlympiadBench: lists of answers
OLYMPIAD = [
    {
        "question": "Solve $x^2 = 9$.",
        "solution": ["Either sign does: \\boxed{3, -3}."],
        "final_answer": ["$3$", "$-3$"],
        "is_multiple_answer": True,
    }
]

# MATH as on the Hub (the answer in the solution's box), and with a column for the answer
MATH = [
    {"problem": "Compute $6 \\cdot 7$.", "level": "Level 1", "type": "Prealgebra", "solution": "It is $\\boxed{42}$."}
]
MATH_ANSWER = [{"problem": "Compute $6 \\cdot 7$.", "solution": "It is $\\boxed{42}$.", "answer": "42"}]

COMPLETION = [{"prompt": "What is 6*7?\n", "completion": "It is \\boxed{42}."}]
COMPLETION_CHAT = [
    {
        "prompt": [{"role": "user", "content": "What is 6*7?"}],
        "completion": [{"role": "assistant", "content": "It is \\boxed{42}."}],
        "answer": 42,
    }
]
CHAT = [
    {
        "messages": [
            {"role": "user", "content": "Do you calculate?"},
            {"role": "assistant", "content": "I do."},
            {"role": "user", "content": "What is 6*7?"},
            {"role": "assistant", "content": "It is \\boxed{42}."},
        ]
    }
]
SHAREGPT = [
    {
        "conversations": [
            {"from": "human", "value": "What is 6*7?"},
            {"from": "gpt", "value": "It is \\boxed{42}."},
        ]
    }
]
READY = [{"prompt": "6*7=", "demonstration": "\\boxed{42}", "solution": "42", "prompt_id": "a"}]
