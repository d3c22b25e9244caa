"""Kinds of models and outputs, each with a number that was worked out by hand."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils.checkpoint import checkpoint

from gradscope.store import open_run


def norm(t: torch.Tensor) -> float:
    return float(t.detach().double().norm())


def one_step(model: nn.Module, loss, **options) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss().backward()
    optimizer.step()


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = self.act(self.layer(x))
        return x


def test_a_module_called_several_times(track, rows) -> None:
    torch.manual_seed(0)
    model = Reused()
    x = torch.randn(5, 4)
    values, gradients = [], []
    at = x
    for _ in range(3):
        at = F.linear(at, model.layer.weight, model.layer.bias)
        at.retain_grad()
        values.append(at)
        at = F.relu(at)
    at.sum().backward()
    gradients = [norm(v.grad) for v in values]
    model.zero_grad()
    with track(model) as scope:
        one_step(model, lambda: model(x).sum())
    found = rows(scope, "outputs")
    names = {name for _, name in found}
    assert names == {"layer", "layer#2", "layer#3", "act", "act#2", "act#3", "Reused"}
    for site, value, gradient in zip(
        ("layer", "layer#2", "layer#3"), values, gradients, strict=True
    ):
        assert found[0, site]["norm"] == pytest.approx(norm(value), rel=1e-5)
        assert found[0, site]["grad_norm"] == pytest.approx(gradient, rel=1e-5)
    depth = {s.name: s.depth for s in open_run(scope.path).sites if s.kind == "output"}
    assert depth["layer"] < depth["act"] < depth["layer#2"] < depth["act#2"] < depth["layer#3"]
    assert found[0, "Reused"] == found[0, "act#3"]


def test_tied_weights_are_one_parameter(track, rows) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    with track(model) as scope:
        one_step(model, lambda: model(torch.randn(5, 4)).square().sum())
    names = [n for _, n in rows(scope, "parameters")]
    assert sorted(names) == ["0.bias", "0.weight", "2.bias"]
    found = rows(scope, "parameters")[0, "0.weight"]["grad_norm"]
    assert found == pytest.approx(norm(model[0].weight.grad), rel=1e-5)


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, torch.Tensor]
    note: str = "text"


class Talkative(nn.Module):
    def __init__(self, form: str) -> None:
        super().__init__()
        self.body = nn.Linear(4, 3)
        self.form = form

    def forward(self, x: torch.Tensor):
        y = self.body(x)
        a, b, c = y * 1, y * 2, y * 3
        if self.form == "tuple":
            return a, (b, c)
        if self.form == "dict":
            return {"logits": a, "hidden": [b, c]}
        return Answer(a, (b, c))


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("tuple", ("0", "1.0", "1.1")),
        ("dict", ("logits", "hidden.0", "hidden.1")),
        ("dataclass", ("logits", "hidden.0", "hidden.1")),
    ],
)
def test_outputs_that_are_no_tensors(track, rows, form, names) -> None:
    model = Talkative(form)
    x = torch.randn(5, 4)

    def loss() -> torch.Tensor:
        y = model(x)
        a, (b, c) = {
            "tuple": lambda: y,
            "dict": lambda: (y["logits"], y["hidden"]),
            "dataclass": lambda: (y.logits, y.hidden),
        }[form]()
        return a.sum() + 2 * b.sum() + 0 * c.sum()

    value = norm(model.body(x))
    with track(model) as scope:
        one_step(model, loss)
    found = rows(scope, "outputs")
    for factor, gradient, name in zip((1, 2, 3), (1, 2, 0), names, strict=True):
        row = found[0, f"Talkative:{name}"]
        assert row["norm"] == pytest.approx(factor * value, rel=1e-5)
        assert row["grad_norm"] == pytest.approx(gradient * 15**0.5, rel=1e-5)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_networks(track, rows, kind) -> None:
    torch.manual_seed(0)
    model = kind(3, 5, num_layers=2, batch_first=True)
    x = torch.randn(2, 7, 3)
    with track(model) as scope:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        out, _ = model(x)
        out.square().sum().backward()
        optimizer.step()
    name = kind.__name__
    row = rows(scope, "outputs")[0, f"{name}:0"]
    assert row["norm"] == pytest.approx(norm(out), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(2 * norm(out), rel=1e-5)
    states = {n for _, n in rows(scope, "outputs")} - {f"{name}:0"}
    lstm = {f"{name}:1.0", f"{name}:1.1"}
    assert states == (lstm if kind is nn.LSTM else {f"{name}:1"})
    weight = rows(scope, "parameters")[0, "weight_hh_l1"]["grad_norm"]
    assert weight == pytest.approx(norm(model.weight_hh_l1.grad), rel=1e-5)


def test_torchs_transformer(track, rows) -> None:
    torch.manual_seed(0)
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.1, batch_first=True)
    with track(model) as scope:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        y = model(torch.randn(2, 5, 8), torch.randn(2, 4, 8))
        y.square().sum().backward()
        optimizer.step()
    found = rows(scope, "outputs")
    assert found[0, "decoder.norm"]["grad_norm"] == pytest.approx(2 * norm(y), rel=1e-5)
    assert found[0, "encoder.layers.0.linear1"]["grad_norm"] > 0
    name = "decoder.layers.0.self_attn.in_proj_weight"
    gradient = norm(model.decoder.layers[0].self_attn.in_proj_weight.grad)
    assert rows(scope, "parameters")[0, name]["grad_norm"] == pytest.approx(gradient, rel=1e-5)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_hugging_face(track, rows, kind, checkpointed) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=50)
        model, tied = transformers.GPT2LMHeadModel(config), "transformer.wte.weight"
    else:
        config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
        )
        model = transformers.BertForMaskedLM(config)
        tied = "bert.embeddings.word_embeddings.weight"
    model.train()
    if checkpointed:
        model.gradient_checkpointing_enable()
    tokens = torch.randint(0, 50, (2, 6))
    kept = []
    with track(model) as scope:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        answer = model(tokens, labels=tokens)
        answer.logits.register_hook(kept.append)
        answer.loss.backward()
        optimizer.step()
    found = rows(scope, "parameters")
    assert found[0, tied]["grad_norm"] == pytest.approx(
        norm(model.get_parameter(tied).grad), rel=1e-5
    )
    assert len({n for _, n in found}) == len(list(model.parameters()))
    row = rows(scope, "outputs")[0, f"{type(model).__name__}:logits"]
    assert row["norm"] == pytest.approx(norm(answer.logits), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(norm(kept[0]), rel=1e-5)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "convnext_atto"])
def test_timm(track, rows, name) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    small = {"img_size": 32} if name.startswith("vit") else {}
    model = timm.create_model(name, num_classes=4, drop_path_rate=0.1, **small)
    with track(model) as scope:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        y = model(torch.randn(2, 3, 32, 32))
        y.square().sum().backward()
        gradients = {n: norm(p.grad) for n, p in model.named_parameters()}
        optimizer.step()
    row = rows(scope, "outputs")[0, type(model).__name__]
    assert row["norm"] == pytest.approx(norm(y), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(2 * norm(y), rel=1e-5)
    found = {n: row["grad_norm"] for (_, n), row in rows(scope, "parameters").items()}
    assert found == pytest.approx(gradients, rel=1e-5, abs=1e-30)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads(track, rows, name) -> None:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, num_classes=4, init_weights=False, aux_logits=True)
    size = 64 if name == "googlenet" else 299
    with track(model, observe=["*[aA]ux*", "fc", type(model)]) as scope:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        y = model(torch.randn(2, 3, size, size))
        heads = list(y)
        sum((n + 1) * head.sum() for n, head in enumerate(heads)).backward()
        optimizer.step()
    found = rows(scope, "outputs")
    for n, field in enumerate(y._fields):
        row = found[0, f"{type(model).__name__}:{field}"]
        assert row["norm"] == pytest.approx(norm(heads[n]), rel=1e-5)
        assert row["grad_norm"] == pytest.approx((n + 1) * 8**0.5, rel=1e-5)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.2))
        self.last = nn.Linear(6, 2)
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if self.reentrant is None:
            x = self.body(x)
        else:
            x = checkpoint(self.body, x, use_reentrant=self.reentrant)
        return self.last(x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(track, rows, reentrant) -> None:
    found = []
    for how in (None, reentrant):
        torch.manual_seed(3)
        model = Checkpointed(how)
        with track(model, run=str(how)) as scope:
            one_step(model, lambda: model(torch.randn(5, 4)).square().sum())  # noqa: B023
        found.append((rows(scope, "outputs"), rows(scope, "parameters")))
    for plain, checkpointed in zip(*found, strict=True):
        assert set(plain) == set(checkpointed)
        for key, row in plain.items():
            assert checkpointed[key] == pytest.approx(row, rel=1e-6, nan_ok=True), key


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.best = Best()
        self.coarse = Coarse()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(x)
        self.best(y)
        self.coarse(y)
        return y


class Best(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.argmax(1)


class Coarse(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.quantize_per_tensor(x.detach(), 0.1, 0, torch.qint8)


def test_integers_and_quantised_outputs_are_skipped_with_a_note(track, rows) -> None:
    model = Mixed()
    x = torch.randn(5, 4)
    with track(model) as scope:
        one_step(model, lambda: model(x).sum())
    notes = open_run(scope.path).status.notes
    assert "The output best is not recorded: its type is torch.int64." in notes
    assert "The output coarse is not recorded: it is quantised." in notes
    assert rows(scope, "outputs")[0, "fc"]["grad_norm"] == pytest.approx(15**0.5, rel=1e-5)


def test_built_on_the_meta_device_and_given_weights_later(track, rows) -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with track(model) as scope:
        model.to_empty(device="cpu")
        torch.manual_seed(0)
        for layer in model:
            layer.reset_parameters()
        one_step(model, lambda: model(torch.randn(5, 4)).square().sum())
    for name, parameter in model.named_parameters():
        row = rows(scope, "parameters")[0, name]
        assert row["grad_norm"] == pytest.approx(norm(parameter.grad), rel=1e-5)


def test_functional_calls_are_recorded_and_torch_func_is_told(track, rows) -> None:
    """Under torch.func's transforms no number is invented: sites are skipped with a note."""
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.randn(5, 4)
    with track(model) as scope:
        weights = dict(model.named_parameters())

        def loss(w: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.func.functional_call(model, w, (x,)).square().sum()

        for name, gradient in torch.func.grad(loss)(weights).items():
            weights[name].grad = gradient.detach()
        expected = norm(model.weight.grad)
        optimizer.step()
    value = rows(scope, "parameters")[0, "weight"]["grad_norm"]
    assert value == pytest.approx(expected, rel=1e-5)
    assert any("traced by torch.func" in note for note in open_run(scope.path).status.notes)
    assert "outputs" not in open_run(scope.path).tables()


def test_channels_last_and_half_precision_outputs(track, rows) -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last).bfloat16()
    x = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last).bfloat16()
    value = norm(model(x))
    with track(model) as scope:
        one_step(model, lambda: model(x).float().square().sum())
    row = rows(scope, "outputs")[0, "Conv2d"]
    assert row["norm"] == pytest.approx(value, rel=1e-5)
    assert row["grad_norm"] == pytest.approx(2 * value, rel=1e-2)
