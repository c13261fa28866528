"""The metrics straight from their definitions, in float64, one threshold at a time; and adversarial inputs."""

import numpy as np
from scipy import ndimage

import metrics

EIGHT = np.ones((3, 3))
LIMITS = (0.05, 0.3, 1.0)


def area_up_to(x, y, limit):
    """Trapezoid area under the polyline up to x = limit, divided by limit."""
    total = 0.0
    for x0, x1, y0, y1 in zip(x[:-1], x[1:], y[:-1], y[1:], strict=True):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        total += (x1 - x0) * (y0 + y1) / 2
    return total / limit


def sweep(maps, defect, count):
    """Yield for every distinct score, descending, the false-positive rate and ``count(score)``."""
    scores = np.concatenate([m.astype(np.float64).ravel() for m in maps])
    normal = np.concatenate([m.astype(np.float64)[~d] for m, d in zip(maps, defect, strict=True)])
    fpr, rows = [0.0], [count(np.inf)]
    for score in np.unique(scores)[::-1]:
        fpr.append(np.mean(normal >= score))
        rows.append(count(score))
    return np.array(fpr), np.array(rows)


def pixel_values(maps, masks, limits):
    """Return what evaluate_pixels(...).named() must be."""
    defect = [
        np.zeros(m.shape, bool) if mask is None else np.asarray(mask) != 0 for m, mask in zip(maps, masks, strict=True)
    ]
    regions = []
    for m, d in zip(maps, defect, strict=True):
        labels, number = ndimage.label(d, EIGHT)
        regions += [m.astype(np.float64)[labels == r] for r in range(1, number + 1)]
    areas = np.array([r.size for r in regions])
    positive = np.concatenate(regions)
    normals = sum(d.size for d in defect) - positive.size

    fpr, overlaps = sweep(maps, defect, lambda t: [np.mean(r >= t) for r in regions])
    _, tpr = sweep(maps, defect, lambda t: np.mean(positive >= t))
    values = {}
    for limit in limits:
        each = np.array([area_up_to(fpr, overlaps[:, r], limit) for r in range(len(regions))])
        values[f"au_pro@{limit}"] = area_up_to(fpr, overlaps.mean(axis=1), limit)
        values[f"pixel_au_roc@{limit}"] = area_up_to(fpr, tpr, limit)
        bounds = np.quantile(areas, [0.25, 0.5, 0.75, 1])
        q = [each[areas <= bound].mean() for bound in bounds]
        values |= {f"au_pro_q{i + 1}@{limit}": q[i] for i in range(4)}
        values[f"size_robustness@{limit}"] = np.mean(q) * (1 - abs(q[3] - q[0]) / max(q)) if max(q) else 0.0
    tp, fp = tpr * positive.size, fpr * normals
    precision = tp[1:] / (tp[1:] + fp[1:])
    values["pixel_average_precision"] = np.sum(precision * np.diff(tpr))
    values["pixel_f1_max"] = np.max(2 * tp / (tp + fp + positive.size))
    return values


def saturated_value(maps, defects, limit):
    defect = [
        np.any([d.mask != 0 for d in each], axis=0) if each else np.zeros(m.shape, bool)
        for m, each in zip(maps, defects, strict=True)
    ]
    channels = [
        (m.astype(np.float64)[d.mask != 0], min(max(d.saturation, 1), np.count_nonzero(d.mask)))
        for m, each in zip(maps, defects, strict=True)
        for d in each
        if np.any(d.mask)
    ]
    # A tie that crosses the saturation threshold enters on a straight line like any other tie, so the curve is
    # that of a random order among equal scores: only the `saturation` highest pixels of a channel count.
    top = [(np.sort(scores)[-saturation:], saturation) for scores, saturation in channels]
    fpr, overlap = sweep(maps, defect, lambda t: np.mean([np.sum(s >= t) / sat for s, sat in top]))
    _, saturated = sweep(maps, defect, lambda t: np.mean([min(np.sum(s >= t) / sat, 1) for s, sat in channels]))
    np.testing.assert_allclose(overlap, saturated, atol=1e-12)  # the vertices are those of the definition
    return area_up_to(fpr, saturated, limit)


def image_values(scores, labels):
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    positive, negative = scores[labels], scores[~labels]
    pairs = positive[:, None] - negative[None, :]
    ap, f1, before = 0.0, 0.0, 0
    for t in np.unique(scores)[::-1]:
        tp, fp = np.sum(positive >= t), np.sum(negative >= t)
        ap += (tp - before) / positive.size * tp / (tp + fp)
        f1 = max(f1, 2 * tp / (tp + fp + positive.size))
        before = tp
    return {
        "image_au_roc": np.mean((pairs > 0) + 0.5 * (pairs == 0)),
        "image_average_precision": ap,
        "image_f1_max": f1,
    }


SCORES = {
    "constant": lambda rng, shape: np.full(shape, 0.25, np.float32),
    "few values": lambda rng, shape: rng.integers(0, 4, shape).astype(np.float32) / 4,
    "signed zero": lambda rng, shape: rng.choice(np.array([-1, -0.0, 0.0, 1], np.float32), shape),
    "subnormal": lambda rng, shape: rng.integers(-3, 4, shape).astype(np.float32) * np.float32(1e-45),
    "smooth": lambda rng, shape: rng.standard_normal(shape).astype(np.float32),
    "half": lambda rng, shape: rng.random(shape).astype(np.float16),
    "finer than float32": lambda rng, shape: 1 + rng.integers(0, 50, shape) * 1e-12,
    "huge range": lambda rng, shape: 10.0 ** rng.uniform(-300, 300, shape),
    "outlier": lambda rng, shape: np.where(rng.random(shape) < 0.02, 1e30, rng.random(shape)).astype(np.float32),
}
MASK_TYPES = (np.bool_, np.uint8, np.int32, np.float32)


def random_mask(rng, shape):
    """Return a mask with regions of all kinds: single pixels, diagonal contacts, large, empty, full."""
    kind = rng.integers(0, 6)
    if kind == 0:
        mask = np.zeros(shape, bool)
    elif kind == 1:
        mask = np.ones(shape, bool)
    elif kind == 2:
        mask = np.indices(shape).sum(axis=0) % 2 == 0  # diagonal contacts only
    elif kind == 3:
        mask = np.zeros(shape, bool)
        mask[rng.integers(0, shape[0]), rng.integers(0, shape[1])] = True
    else:
        mask = rng.random(shape) < rng.uniform(0.05, 0.7)
    dtype = MASK_TYPES[rng.integers(0, len(MASK_TYPES))]
    value = rng.choice([1, 7, 255]) if dtype != np.bool_ else 1
    return mask.astype(dtype) * dtype(value)


def random_case(seed, kind, images):
    """Return maps of mixed sizes and one kind of score, and masks or None."""
    rng = np.random.default_rng(seed)
    shapes = [tuple(int(s) for s in rng.integers(1, 13, 2)) for _ in range(images)]
    maps = [SCORES[kind](rng, shape) for shape in shapes]
    masks = [None if rng.random() < 0.3 else random_mask(rng, shape) for shape in shapes]
    return maps, masks


def random_defects(seed, maps):
    rng = np.random.default_rng(seed)
    return [
        [
            metrics.Defect(mask, int(rng.integers(0, mask.size + 3)))
            for mask in (random_mask(rng, m.shape) for _ in range(rng.integers(0, 4)))
        ]
        for m in maps
    ]
