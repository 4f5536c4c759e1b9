"""`hpt-trl configs`: list the configs that come with the package, or print the path of one."""

import sys
from collections.abc import Sequence

from hpt_trl.common.configs import PREFIX, config_names, config_path, title

USAGE = """usage: hpt-trl configs [NAME]

Without NAME, list the configs that come with the package. With NAME, print the path of that config:

  hpt-trl train --config hpt_trl:lora/qwen2.5_math_1.5b_lora
  accelerate launch --config_file "$(hpt-trl configs accelerate/zero3)" -m hpt_trl.train --config hpt_trl:vllm/colocate
  cp "$(hpt-trl configs smollm2_135m_gsm8k)" my.yaml"""


def listing() -> str:
    """Names and titles of all configs, one per line."""
    names = config_names()
    width = max(map(len, names)) + len(PREFIX)
    return "\n".join(f"{PREFIX + name:<{width}}  {title(config_path(name))}" for name in names)


def main(argv: Sequence[str]) -> None:
    """Run the command line `hpt-trl configs`."""
    if any(argument.startswith("-") for argument in argv) or len(argv) > 1:
        is_help = list(argv) in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if is_help else sys.stderr)
        raise SystemExit(0 if is_help else 2)
    if not argv:
        print(listing())
        return
    try:
        print(config_path(argv[0]))
    except FileNotFoundError as error:
        print(f"hpt-trl configs: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
