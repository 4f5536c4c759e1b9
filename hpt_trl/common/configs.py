"""The configs that come with the package, by short names: `hpt_trl:lora/qwen2.5_math_1.5b_lora`."""

import difflib
from pathlib import Path

PREFIX = "hpt_trl:"
_SUFFIXES = ("", ".yaml", ".py")


def config_folder() -> Path:
    """Folder of the configs: inside the package when installed from a wheel, beside it in a clone."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """Short names of all configs, without the prefix.

    Example:
        >>> "accelerate/zero3" in config_names()
        True
    """
    folder = config_folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def config_path(name: str) -> Path:
    """Path of the config with a short name, with or without the prefix; any other file of its folder by its full name.

    Raises:
        FileNotFoundError: if there is none, with the names that are most similar.
    """
    short = name.removeprefix(PREFIX).removesuffix(".yaml")
    folder = config_folder()
    found = [path for suffix in _SUFFIXES if (path := folder / f"{short}{suffix}").is_file()]
    if not found or folder not in found[0].resolve().parents:
        similar = difflib.get_close_matches(short, config_names(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(PREFIX + each for each in similar)}? " if similar else ""
        raise FileNotFoundError(f"There is no config {name!r}. {hint}`hpt-trl configs` lists all of them.")
    return found[0]


def config_file(value: str) -> Path:
    """The YAML file that a `--config` names: by path, or by the short name of a config of the package.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if value.startswith(PREFIX):
        return config_path(value)
    if not Path(value).is_file():
        raise FileNotFoundError(
            f"The config file {value!r} does not exist. Give the path of a YAML file, or one of the configs that come "
            f"with the package, such as {PREFIX}smollm2_135m_gsm8k; `hpt-trl configs` lists them."
        )
    return Path(value)


def title(path: Path) -> str:
    """First line of a config's opening comment."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
