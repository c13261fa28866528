"""DSR: networks, losses, made-up anomalies, scores."""

import importlib.util
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from methods.common.noise import perlin_noise
from methods.config import make_config
from methods.conformance.images import striped
from methods.detector import FitContext, ImageSet
from methods.dsr.anomalies import (
    SKIPPED_CODES,
    anomaly_masks,
    feature_anomalies,
    replaced,
    rotated,
    smudged,
)
from methods.dsr.detector import Dsr, DsrModule, as_bgr
from methods.dsr.losses import focal
from methods.dsr.networks import SubspaceRestriction, UNet, object_decoder
from methods.dsr.vq_model import CODES, VqModel
from methods.dsr.vq_training import MovingCodes, VqConfig, VqTraining
from methods.dsr.weights import load_vq_model, our_names, vq_model_identity
from methods.errors import MethodError, WeightsError

installed = pytest.mark.skipif(not importlib.util.find_spec("anomalib"), reason="anomalib is not installed")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.fixture(scope="module")
def module() -> DsrModule:
    torch.manual_seed(0)
    made = DsrModule().eval()
    load_vq_model(made.vq, "embedded", None)
    return made


def test_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        whole = DsrModule()
    moving_averages = 2 * whole.vq.codebook_lo.vectors.numel()
    assert count(whole) + moving_averages == 40_298_762  # 40.30 million
    assert round((count(whole.vq) + moving_averages) / 1e6, 2) == 4.02


def test_the_focal_loss_is_its_equation() -> None:
    probabilities = torch.rand(2, 2, 3, 4, generator=generator()).softmax(1)
    mask = (torch.rand(2, 1, 3, 4, generator=generator(1)) > 0.5).float()
    total = 0.0
    for image in range(2):
        for y in range(3):
            for x in range(4):
                label = int(mask[image, 0, y, x])
                normal, anomalous = probabilities[image, :, y, x].double().tolist()
                true, other = (anomalous, normal) if label else (normal, anomalous)
                p = torch.tensor((1 - 1e-5) * true + 1e-5 * other + 1e-5, dtype=torch.float64)
                total += float(-((1 - p) ** 2) * p.log())
    assert float(focal(probabilities, mask)) == pytest.approx(total / 24, rel=1e-5)
    perfect = torch.cat([1 - mask, mask], dim=1)
    assert float(focal(perfect, mask)) == pytest.approx(0, abs=1e-8)
    assert float(focal(1 - perfect, mask)) > 5, "wrong normal pixels cost as much as wrong anomalous ones"
    normal = torch.zeros_like(mask)
    assert float(focal(torch.cat([normal, 1 - normal], dim=1), normal)) > 5


def test_the_detection_loss_is_the_sum_of_its_parts(module: DsrModule) -> None:
    images = as_bgr(striped(2, (64, 64), seed=0))
    masks = torch.zeros(2, 1, 64, 64)
    masks[:, :, 16:32, 16:40] = 1
    with torch.no_grad():
        anomalies = feature_anomalies(module.vq, images, masks, generator())
        decoded = module.decode(anomalies.lo, anomalies.hi)
        parts = [
            focal(module.detect(decoded), anomalies.masks),
            (decoded.restricted_lo - anomalies.normal_lo).square().mean(),
            (decoded.restricted_hi - anomalies.normal_hi).square().mean(),
            10 * (decoded.specific - images).square().mean(),
        ]
        assert float(module.detection_loss(images, anomalies)) == pytest.approx(float(sum(parts)), rel=1e-5)


def test_gradients_reach_what_each_stage_trains(module: DsrModule) -> None:
    images = as_bgr(striped(2, (64, 64), seed=0))
    masks = torch.zeros(2, 1, 64, 64)
    masks[:, :, 16:32, 16:40] = 1
    module.zero_grad()
    module.detection_loss(images, feature_anomalies(module.vq, images, masks, generator())).backward()
    having = {name.partition(".")[0] for name, one in module.named_parameters() if one.grad is not None}
    assert having == {"restriction_lo", "restriction_hi", "object_decoder", "detector"}
    module.zero_grad()
    module.upsampling_loss(images, masks).backward()
    having = {name.partition(".")[0] for name, one in module.named_parameters() if one.grad is not None}
    assert having == {"upsampler"}
    module.zero_grad()


def test_maps_and_scores_are_those_of_the_two_networks(module: DsrModule) -> None:
    images = striped(2, (64, 96), seed=3)
    with torch.inference_mode():
        maps, scores = module(images)
        encoded = module.vq.encode(images.flip(1) / 255)
        decoded = module.decode(encoded.quantised_lo, encoded.quantised_hi)
        mask = module.detector(torch.cat([decoded.specific, decoded.general], 1)).softmax(1)
        upsampled = module.upsampler(torch.cat([decoded.specific, decoded.general, mask], 1)).softmax(1)[:, 1]
    torch.testing.assert_close(maps, upsampled)
    window = F.pad(mask[:, 1].double(), (10,) * 4)
    means = window.unfold(1, 21, 1).unfold(2, 21, 1).mean((-1, -2))
    torch.testing.assert_close(scores, means.amax((1, 2)).float(), rtol=1e-4, atol=1e-6)


def test_codes_are_the_nearest_vectors(module: DsrModule) -> None:
    book = module.vq.codebook_hi
    features = torch.randn(1, 128, 2, 3, generator=generator())
    distances = torch.cdist(features[0].flatten(1).T.double(), book.vectors.double())
    assert torch.equal(book.nearest(features).flatten(), distances.argmin(1))
    assert torch.equal(book(features)[0, :, 1, 2], book.vectors[book.nearest(features)[0, 1, 2]])


def test_replaced_vectors_are_neither_near_nor_far(module: DsrModule) -> None:
    book = module.vq.codebook_lo
    features = torch.randn(2, 128, 8, 8, generator=generator())
    quantised = book(features)
    masks = torch.zeros(2, 1, 8, 8)
    masks[0, :, 2:6, 1:7] = 1
    strengths = torch.tensor([0.25, 1.0])
    changed = replaced(features, quantised, book, masks, strengths, generator())
    outside = masks.expand_as(changed) == 0
    assert torch.equal(changed[outside], quantised[outside])
    for y in range(2, 6):
        for x in range(1, 7):
            order = book.distances(features[0, :, y, x][None]).argsort(dim=1)[0]
            number = int((book.vectors == changed[0, :, y, x]).all(1).nonzero()[0])
            rank = int((order == number).nonzero())
            assert SKIPPED_CODES <= rank <= CODES // 4 + 1
    assert torch.equal(replaced(features, quantised, book, 0 * masks, strengths, generator()), quantised)


def test_half_of_the_images_have_no_anomaly_and_the_others_have_blobs() -> None:
    masks = anomaly_masks(300, (64, 64), generator())
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    anomalous = masks.flatten(1).any(1).float().mean()
    assert 0.3 < float(anomalous) < 0.5
    assert 0.005 < float(masks.mean()) < 0.2
    assert torch.equal(masks, anomaly_masks(300, (64, 64), generator()))


def test_perlin_noise_is_smooth_zero_at_its_corners_and_no_larger_than_one() -> None:
    noise = perlin_noise((64, 96), (4, 8), generator())
    assert noise.shape == (64, 96)
    assert float(noise[::16, ::12].abs().max()) < 1e-6
    assert 0.3 < float(noise.abs().max()) <= 1
    assert float((noise[1:] - noise[:-1]).abs().max()) < 0.3
    angles = 2 * torch.pi * torch.rand(5, 9, generator=generator())
    y, x = 21, 40  # in the cell (1, 3), a share of (5/16, 4/12) into it
    down, right = 5 / 16, 4 / 12

    def product(corner: int, side: int) -> float:
        angle = angles[1 + corner, 3 + side]
        return float(angle.cos()) * (down - corner) + float(angle.sin()) * (right - side)

    def fade(t: float) -> float:
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    left = product(0, 0) + fade(down) * (product(1, 0) - product(0, 0))
    other = product(0, 1) + fade(down) * (product(1, 1) - product(0, 1))
    assert float(noise[y, x]) == pytest.approx(2**0.5 * (left + fade(right) * (other - left)), abs=1e-5)


def test_smudges_blend_one_colour_where_the_mask_is() -> None:
    images, masks = torch.rand(2, 3, 8, 8, generator=generator()), torch.zeros(2, 1, 8, 8)
    masks[0, :, 2:5] = 1
    changed = smudged(images, masks, generator(1))
    assert torch.equal(changed[1], images[1])
    assert torch.equal(changed[0, :, :2], images[0, :, :2])
    slopes = (changed[0, :, 2, 1] - changed[0, :, 2, 2]) / (images[0, :, 2, 1] - images[0, :, 2, 2])
    assert float(slopes.min()) == pytest.approx(float(slopes.max()), abs=1e-4)
    assert 0 <= float(slopes[0]) <= 0.8


def test_a_quarter_turn_moves_every_pixel_to_its_place() -> None:
    images = torch.rand(1, 3, 16, 16, generator=generator())
    turned = rotated(images, torch.tensor([90.0]))
    candidates = [torch.rot90(images, k, (2, 3)) for k in (1, 3)]
    assert min(float((turned - one).abs().max()) for one in candidates) < 1e-4
    torch.testing.assert_close(rotated(images, torch.tensor([0.0])), images)


def test_stages_share_the_training_as_the_options_say() -> None:
    small = {"vq_model": "random", "image_size": (64, 64), "batch_size": 2}
    detector = Dsr(make_config(Dsr, None, small | {"detection_steps": 2, "upsampling_steps": 1}))
    stages = []
    images = striped(3, (64, 64), seed=0)
    context = FitContext(0, train_scale=2, progress=lambda progress: stages.append((progress.stage, progress.total)))
    detector.fit(ImageSet(images), ImageSet(images, []), context)
    assert detector.training_steps == 6
    assert [step for step, _ in detector.losses] == [1, 2, 3, 4, 5, 6]
    assert dict(stages) == {"detection": 4, "upsampling": 2}
    with pytest.raises(MethodError, match="at least one training image"):
        detector.fit(ImageSet(images, []), ImageSet(images, []), context)


def test_moving_codes_become_the_means_of_their_features() -> None:
    torch.manual_seed(0)
    book = VqModel().codebook_lo
    codes = MovingCodes(book)
    features = torch.randn(64, 128, generator=generator())
    numbers = torch.arange(64) % 2
    for _ in range(400):
        codes.update(features, numbers)
    for number in (0, 1):
        torch.testing.assert_close(book.vectors[number], features[numbers == number].mean(0), rtol=0.05, atol=0.01)
    assert codes.restart(features, 0.03, generator()) == CODES - 2


def test_the_official_file_is_renamed_and_another_is_refused(tmp_path) -> None:
    state = {"_encoder_b._residual_stack._layers.1._block.3.weight": torch.ones(1), "_vq_vae_top._ema_w": torch.ones(2)}
    assert our_names(state).keys() == {"encoder_hi.6.layers.2.weight"}
    own = VqModel().state_dict()
    assert our_names(own).keys() == own.keys()
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"does not hold DSR's quantised autoencoder: its tensors are weight \(2,\)"):
        load_vq_model(VqModel(), str(tmp_path / "other.pth"), tmp_path)
    assert vq_model_identity("embedded", tmp_path).tag.startswith("trained, 2500 steps")


class Photographs:
    identity = "stripes"

    def images(self, size, *, center_crop=None, limit=None, seed=0):
        return ImageSet(striped(3, size, seed=seed))


def test_the_autoencoder_is_trained_repeatably() -> None:
    config = VqConfig(steps=4, batch_size=2, crop=32, learning_rate=1e-3)

    def train() -> tuple[list[float], VqModel]:
        training = VqTraining(config, Photographs(), torch.device("cpu"))
        return [training.step(number) for number in range(4)], training.network

    losses, network = train()
    again, _ = train()
    assert losses == again
    assert losses[-1] < losses[0]
    assert not torch.equal(network.codebook_hi.vectors, VqModel().codebook_hi.vectors)


def theirs(name: str) -> str:
    """A name of ours in a detection or upsampling network, as anomalib calls it."""
    if name.startswith("down."):
        number, rest = re.fullmatch(r"down\.(\d)\.(.+)", name).groups()
        return f"unet.encoder.block{int(number) + 1}.{rest}"
    if name.startswith("classify."):
        return name.replace("classify", "unet.decoder.fin_out.0")
    kind, number, rest = re.fullmatch(r"(up|merge)\.(\d)\.(.+)", name).groups()
    return f"unet.decoder.{'up' if kind == 'up' else 'db'}{int(number) + 1}.{rest}"


@installed
@pytest.mark.slow
def test_maps_and_scores_are_anomalibs_with_the_same_weights(module: DsrModule) -> None:
    from methods.common.torchvision_import import import_torchvision

    import_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from anomalib.models.image.dsr.torch_model import DsrModel

    other = DsrModel().eval()
    latent = {key.removeprefix("discrete_latent_model."): key for key in other.state_dict() if "discrete" in key}
    ours = module.state_dict()
    state = dict(other.state_dict())
    for short, key in latent.items():
        for renamed in our_names({short: state[key]}):
            state[key] = ours[f"vq.{renamed}"]
    pairs = {
        "restriction_lo": "subspace_restriction_module_lo",
        "restriction_hi": "subspace_restriction_module_hi",
        "object_decoder": "image_reconstruction_network",
    }
    for mine, their in pairs.items():
        keys = [key for key in state if key.startswith(f"{their}.")]
        values = module.get_submodule(mine).state_dict().values()
        state |= dict(zip(keys, values, strict=True))
    for mine, their in {"detector": "anomaly_detection_module", "upsampler": "upsampling_module"}.items():
        for name, value in module.get_submodule(mine).state_dict().items():
            assert f"{their}.{theirs(name)}" in state
            state[f"{their}.{theirs(name)}"] = value
    other.load_state_dict(state)
    images = striped(2, (64, 64), seed=1)
    with torch.inference_mode():
        maps, scores = module(images)
        expected = other(images.flip(1) / 255)
    torch.testing.assert_close(maps, expected.anomaly_map, rtol=0, atol=1e-3)  # of rounding, that contrasts enlarge
    torch.testing.assert_close(scores, expected.pred_score.flatten(), rtol=0, atol=1e-3)


def test_networks_keep_the_size() -> None:
    with torch.inference_mode():
        assert SubspaceRestriction()(torch.zeros(1, 128, 8, 12)).shape == (1, 128, 8, 12)
        assert object_decoder()(torch.zeros(1, 256, 8, 12)).shape == (1, 3, 32, 48)
        assert UNet(6)(torch.zeros(1, 6, 32, 48)).shape == (1, 2, 32, 48)
