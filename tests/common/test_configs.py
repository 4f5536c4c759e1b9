"""Configs of the package by short names."""

import pytest

from hpt_trl.common.configs import config_file, config_folder, config_names, config_path, title


def test_names_are_the_paths_of_all_yaml_files():
    assert {"miniature", "accelerate/zero3", "lora/qwen2.5_math_1.5b_lora"} <= set(config_names())
    assert len(config_names()) == len(list(config_folder().rglob("*.yaml")))
    for name in config_names():
        assert config_path(name) == config_path(f"hpt_trl:{name}") == config_folder() / f"{name}.yaml"


def test_a_file_that_is_not_yaml_has_its_full_name():
    assert config_path("paper/longer_context.py").is_file()


@pytest.mark.parametrize("name", config_names())
def test_first_lines_are_sentences_that_fit_a_list(name):
    first = title(config_path(name))
    assert first[-1] in ".)", first
    assert len(first) < 120


def test_a_name_that_does_not_exist_is_answered_with_similar_ones():
    with pytest.raises(
        FileNotFoundError, match=r"no config 'hpt_trl:lora/qwen2.5_math_15b_lora'.*Did you mean hpt_trl:l"
    ):
        config_path("hpt_trl:lora/qwen2.5_math_15b_lora")
    with pytest.raises(FileNotFoundError, match=r"no config .hpt_trl:\.\./pyproject\.toml"):
        config_path("hpt_trl:../pyproject.toml")


def test_config_takes_a_path_or_a_short_name(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("seed: 1\n")
    assert config_file(str(own)) == own
    assert config_file("hpt_trl:miniature") == config_folder() / "miniature.yaml"
    with pytest.raises(FileNotFoundError, match=r"'nowhere.yaml' does not exist.*hpt_trl:"):
        config_file("nowhere.yaml")
