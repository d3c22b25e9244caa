"""Networks by name: shapes, counts, shared weights, untouched random state, errors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gradscope.models import (
    DenseLayer,
    InceptionOutputs,
    PadShortcut,
    PlainUnit,
    ResidualUnit,
    build,
    family,
    names,
    set_survival,
)
from gradscope.schema import GradScopeError


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def weights_layers(model: nn.Module) -> int:
    return sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules())


def logits(output: Tensor | InceptionOutputs) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits


@pytest.mark.parametrize("name", ["plain20", "resnet20", "densenet22", "inception_small"])
@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_family_trains_on_both_sizes(name: str, size: int, batch_norm: bool) -> None:
    model = build(name, in_channels=3, num_classes=7, image_size=size, batch_norm=batch_norm)
    output = model(torch.randn(2, 3, size, size))
    assert logits(output).shape == (2, 7)
    loss = sum(o.square().mean() for o in (output if isinstance(output, tuple) else (output,)))
    assert isinstance(loss, Tensor)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()) is batch_norm


def test_published_sizes() -> None:
    # He et al. 2015, table 6: 0.27 M, 0.85 M, 1.7 M; Huang et al. 2017, table 2: 1.0 M, 0.8 M.
    assert count(build("resnet20", in_channels=3)) == 269_722
    assert round(count(build("resnet56", in_channels=3)) / 1e6, 2) == 0.85
    assert round(count(build("resnet110", in_channels=3)) / 1e6, 1) == 1.7
    assert round(count(build("densenet40", in_channels=3)) / 1e6, 1) == 1.0
    assert round(count(build("densenet100-bc", in_channels=3)) / 1e6, 1) == 0.8


@pytest.mark.parametrize(
    "name", ["plain20", "resnet32", "densenet22", "densenet40", "densenet-22-bc"]
)
def test_depth_is_the_number_in_the_name(name: str) -> None:
    depth = int("".join(c for c in name if c.isdigit()))
    assert weights_layers(build(name)) == depth


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_plain_has_the_weights_of_resnet(shortcut: str, batch_norm: bool) -> None:
    plain = build("plain20", seed=3, batch_norm=batch_norm).state_dict()
    resnet = build("resnet20", seed=3, batch_norm=batch_norm, shortcut=shortcut).state_dict()
    extra = [name for name in resnet if name not in plain]
    assert all(".shortcut." in name for name in extra)
    assert bool(extra) is (shortcut == "B")
    for name, value in plain.items():
        assert torch.equal(value, resnet[name]), name


def test_convolutions_are_the_same_without_normalisation() -> None:
    with_norm, without = build("resnet20"), build("resnet20", batch_norm=False)
    for name, value in with_norm.state_dict().items():
        if name.endswith("weight") and "bn" not in name:
            assert torch.equal(value, without.state_dict()[name]), name


def test_trunk_and_heads_do_not_depend_on_each_other() -> None:
    whole = build("inception_small").state_dict()
    for heads in ((), ("aux1",), ("aux2",)):
        part = build("inception_small", aux_heads=heads).state_dict()
        assert {n.split(".")[0] for n in whole if n not in part} == {"aux1", "aux2"} - set(heads)
        assert all(torch.equal(value, whole[name]) for name, value in part.items())


@pytest.mark.parametrize("name", ["plain20", "densenet22", "inception_small", "resnet18"])
def test_seed_decides_and_global_stream_is_untouched(name: str) -> None:
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    first, again, other = build(name, seed=5), build(name, seed=5), build(name, seed=6)
    assert torch.equal(torch.rand(4), expected)
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_without_seed_the_global_stream_is_used() -> None:
    torch.manual_seed(1)
    first = build("plain20", seed=None)
    second = build("plain20", seed=None)
    torch.manual_seed(1)
    again = build("plain20", seed=None)
    assert torch.equal(first.get_parameter("fc.weight"), again.get_parameter("fc.weight"))
    assert not torch.equal(first.get_parameter("fc.weight"), second.get_parameter("fc.weight"))


def test_he_initialisation() -> None:
    model = build("resnet110", batch_norm=False)
    for name in ("stage1.3.conv1", "stage3.9.conv2"):
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        expected = (2.0 / (9 * conv.in_channels)) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert conv.bias is not None
        assert not conv.bias.any()


def test_module_names_of_the_contract() -> None:
    paths = dict(build("resnet20", shortcut="B").named_modules())
    assert {"conv1", "bn1", "relu", "fc"} <= set(paths)
    units = [name for name, m in paths.items() if isinstance(m, ResidualUnit)]
    assert units == [f"stage{s}.{i}" for s in (1, 2, 3) for i in range(3)]
    assert {"conv1", "bn1", "relu", "conv2", "bn2", "shortcut"} <= {
        name.removeprefix("stage2.0.") for name in paths if name.startswith("stage2.0.")
    }
    plain = dict(build("plain20").named_modules())
    assert set(plain) == {name for name in paths if "shortcut" not in name}
    assert type(plain["stage1.0"]) is PlainUnit
    dense = dict(build("densenet22").named_modules())
    layers = [name for name, m in dense.items() if isinstance(m, DenseLayer)]
    assert layers == [f"block{b}.{i}" for b in (1, 2, 3) for i in range(6)]
    assert {"transition1", "transition2", "conv1", "fc"} <= set(dense)


def test_residual_unit_is_the_formula() -> None:
    unit = build("resnet20").get_submodule("stage2.0").eval()
    assert isinstance(unit, ResidualUnit)
    x = torch.randn(3, 16, 8, 8)
    padded = torch.zeros(3, 32, 4, 4)
    padded[:, :16] = x[:, :, ::2, ::2]
    branch = unit.bn2(unit.conv2(torch.relu(unit.bn1(unit.conv1(x)))))
    assert torch.equal(unit(x), torch.relu(padded + branch))
    unit.skip_scale = 0.5
    assert torch.equal(unit(x), torch.relu(0.5 * padded + branch))


def test_pad_shortcut_keeps_every_second_pixel() -> None:
    x = torch.arange(2 * 49.0).reshape(1, 2, 7, 7)
    out = PadShortcut(2, 3)(x)
    assert out.shape == (1, 5, 4, 4)
    assert torch.equal(out[:, :2], x[:, :, ::2, ::2])
    assert not out[:, 2:].any()


def test_cut_skips_make_the_plain_network() -> None:
    x = torch.randn(4, 1, 28, 28)
    plain = build("plain20", seed=2).eval()
    cut = build("resnet20", seed=2, skip_scale=0.0).eval()
    whole = build("resnet20", seed=2).eval()
    assert torch.equal(plain(x), cut(x))
    assert not torch.equal(plain(x), whole(x))


def test_dense_layer_keeps_its_input() -> None:
    layer = build("densenet22").get_submodule("block2.3")
    assert isinstance(layer, DenseLayer)
    x = torch.randn(2, layer.width_in, 5, 5)
    out = layer(x)
    assert out.shape == (2, layer.width_in + 12, 5, 5)
    assert torch.equal(out[:, : layer.width_in], x)


def test_dense_options() -> None:
    wide = build("densenet22", growth_rate=24)
    assert count(wide) == count(build("densenet22-k24")) > count(build("densenet22"))
    named = build("densenet40-bc")
    spelled = build("densenet40", bottleneck=True, compression=0.5)
    assert count(named) == count(spelled)


def test_inception_outputs() -> None:
    model = build("inception_small")
    x = torch.randn(2, 1, 28, 28)
    output = model(x)
    assert isinstance(output, InceptionOutputs)
    assert all(isinstance(o, Tensor) and o.shape == (2, 10) for o in output)
    assert isinstance(model.eval()(x), Tensor)
    assert isinstance(build("inception_small", aux_heads=())(x), Tensor)
    one = build("inception_small", aux_heads=("aux2",))(x)
    assert one.aux1 is None
    assert one.aux2 is not None


def test_stochastic_depth_falls_linearly_and_drops_as_often_as_it_says() -> None:
    model = build("resnet20", survival=0.1)
    units = [m for m in model.modules() if isinstance(m, ResidualUnit)]
    assert [u.survival for u in units] == pytest.approx([1 - k / 9 * 0.9 for k in range(1, 10)])
    last = units[-1]
    x = torch.rand(2, 64, 7, 7)
    torch.manual_seed(0)
    dropped = sum(torch.equal(last(x), x) for _ in range(200))
    assert 160 <= dropped <= 195
    last.eval()
    assert torch.equal(last(x), torch.relu(x + 0.1 * last.branch(x)))
    assert set_survival(model, 1.0) == 9
    assert torch.equal(last(x), torch.relu(x + last.branch(x)))


def test_torchvision_by_name() -> None:
    model = build("resnet18", in_channels=1, num_classes=4, image_size=32)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 4)
    assert model.get_submodule("conv1").stride == (2, 2)
    assert family("resnet50") == "torchvision"
    assert family("resnet-50") == "residual"
    assert weights_layers(build("resnet-50")) == 50
    googlenet = build("googlenet", in_channels=1, image_size=32)
    assert googlenet(torch.randn(2, 1, 32, 32)).aux_logits1.shape == (2, 10)
    plain_output = build("googlenet", aux_heads=(), image_size=32)(torch.randn(2, 1, 32, 32))
    assert isinstance(plain_output, Tensor)


def test_vision_transformer_takes_the_image_size() -> None:
    model = build("vit_b_16", image_size=32, num_classes=3)
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnt20", {}, ["resnt20", "resnet20"]),
        ("plain21", {}, ["plain20", "plain26"]),
        ("resnet1", {}, ["resnet8"]),
        ("densenet23", {}, ["densenet22", "densenet25"]),
        ("", {}, ["plain20"]),
        ("vgg11", {}, ["vgg11", "28x28"]),
        ("vit_b_16", {"image_size": 28}, ["vit_b_16", "28x28"]),
        ("plain20", {"shortcut": "B"}, ["plain20", "shortcut"]),
        ("resnet20", {"shortcut": "C"}, ["'C'"]),
        ("resnet20", {"growth_rate": 3}, ["growth_rate", "skip_scale"]),
        ("resnet20", {"colour": 3}, ["colour", "skip_scale"]),
        ("densenet22", {"compression": 0.0}, ["compression"]),
        ("densenet25", {"bottleneck": True}, ["6 k + 4"]),
        ("densenet22-k12", {"growth_rate": 24}, ["12", "24"]),
        ("densenet22-k0", {}, ["growth rate 0"]),
        ("inception_small", {"aux_heads": ("aux3",)}, ["aux3", "aux1"]),
        ("resnet18", {"batch_norm": False}, ["resnet18", "batch_norm"]),
        ("resnet20", {"survival": 0.0}, ["survival"]),
        ("plain20", {"num_classes": 0}, ["0 classes"]),
    ],
)
def test_wrong_wishes_are_told_in_a_sentence(
    name: str, options: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(GradScopeError) as caught:
        build(name, **options)  # type: ignore[arg-type]
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_names_can_be_asked_for() -> None:
    assert {"plain20", "resnet20", "densenet22", "inception_small", "resnet50"} <= set(names())
    assert len(set(names())) == len(names())
    kinds = {
        name: family(name) for name in ("plain20", "resnet56", "densenet40", "inception_small")
    }
    assert list(kinds.values()) == ["plain", "residual", "dense", "inception"]


def test_models_survive_copies() -> None:
    for name in ("resnet20", "densenet22", "inception_small"):
        model = build(name).eval()
        x = torch.randn(1, 1, 28, 28)
        assert torch.equal(copy.deepcopy(model)(x), model(x))
