"""Weights that are not finite are found; errors that explain themselves are left as they are."""

import pytest
import torch

from hpt_trl.common.models import is_sampling_error, not_finite, reporting_load_errors


def model_of(values):
    model = torch.nn.Module()
    for name, value in values.items():
        model.register_parameter(name, torch.nn.Parameter(value, requires_grad=value.is_floating_point()))
    return model


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_parameter_that_is_not_finite_is_named(dtype, value):
    good, bad = torch.ones(3, 5, dtype=dtype), torch.ones(3, 5, dtype=dtype)
    bad[1, 2] = value
    assert not_finite(model_of({"good": good, "bad": bad, "worse": bad})) == "bad"


def test_the_largest_numbers_are_finite_and_what_has_no_numbers_is_left_out():
    dtypes = {"a": torch.float16, "b": torch.bfloat16, "c": torch.float32, "d": torch.float64}
    largest = {name: torch.tensor([torch.finfo(dtype).max], dtype=dtype) for name, dtype in dtypes.items()}
    others = {
        "empty": torch.zeros(0),
        "quantized": torch.ones(2, dtype=torch.uint8),
        "elsewhere": torch.full((2,), torch.nan, device="meta"),
    }
    assert not_finite(model_of(largest | others)) is None
    assert not_finite(torch.nn.Module()) is None


def test_of_a_sharded_parameter_the_shard_of_this_process_counts():
    class Sharded(torch.nn.Parameter):
        """As DeepSpeed's ZeRO-3 does, empty but for its shard."""

    parameter = Sharded(torch.zeros(0))
    parameter.ds_tensor = torch.tensor([1.0, torch.nan])
    model = torch.nn.Module()
    model.register_parameter("weight", parameter)
    assert not_finite(model) == "weight"


def from_pretrained(error):
    raise error


@pytest.mark.parametrize("error", [OSError("'x' is no model"), ImportError("needs y"), torch.OutOfMemoryError("full")])
def test_errors_that_explain_themselves_are_left_as_they_are(error):
    with pytest.raises(type(error)) as caught, reporting_load_errors("model"):
        from_pretrained(error)
    assert caught.value is error


def test_errors_of_loading_name_the_model_and_others_are_left_as_they_are():
    with (
        pytest.raises(
            ValueError, match=r"The model 'mine' or its tokenizer could not be loaded: OSError: \[Errno 22\]"
        ),
        reporting_load_errors("mine"),
    ):
        from_pretrained(OSError(22, "Invalid argument"))
    with pytest.raises(KeyError), reporting_load_errors("mine"):
        raise KeyError("not of loading")
    with pytest.raises(KeyError), reporting_load_errors(torch.nn.Module()):
        from_pretrained(KeyError("a model was given"))


def test_errors_of_sampling_are_recognized():
    with pytest.raises(RuntimeError) as caught:
        torch.multinomial(torch.tensor([torch.nan, 1.0]), 1)
    assert is_sampling_error(caught.value)
    assert not is_sampling_error(RuntimeError("out of memory"))
