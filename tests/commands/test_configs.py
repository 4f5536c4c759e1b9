"""`hpt-trl configs`: the list, a path, and errors."""

import pytest

from hpt_trl.commands.configs import main
from hpt_trl.common.configs import config_folder, config_names


def test_without_a_name_all_configs_are_listed_with_their_first_line(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].removeprefix("hpt_trl:") for line in lines] == config_names()
    (zero3,) = [line for line in lines if line.startswith("hpt_trl:accelerate/zero3 ")]
    assert zero3.endswith(
        "Eight GPUs on one machine; parameters, gradients and optimizer state sharded (DeepSpeed ZeRO-3)."
    )


def test_with_a_name_the_path_is_printed(capsys):
    main(["accelerate/zero3"])
    assert capsys.readouterr().out == f"{config_folder() / 'accelerate' / 'zero3.yaml'}\n"


@pytest.mark.parametrize(("argv", "code"), [(["zero4"], 2), (["--help"], 0), (["--all"], 2), (["a", "b"], 2)])
def test_help_and_errors(argv, code, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == code
    printed = capsys.readouterr()
    assert (printed.out if code == 0 else printed.err).startswith(
        "usage: hpt-trl configs" if argv != ["zero4"] else "hpt-trl configs: error: There is no config 'zero4'"
    )
