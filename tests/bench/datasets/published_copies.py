"""Small copies of published collections, generated in exactly their layout."""

import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 32)
"""Height and width in pixels."""


def save_image(path: Path, *, shade: int = 100, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(zlib.crc32(str(path).encode()))
    pixels = random.integers(shade - 5, shade + 5, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def save_mask(path: Path, *values: int) -> Path:
    """A square a value; an empty mask without any."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(SIZE, dtype=np.uint8)
    for index, value in enumerate(values):
        mask[4:9, 2 + 8 * index : 8 + 8 * index] = value
    Image.fromarray(mask).save(path)
    return path


def visa(collection: Path, scenarios: tuple[str, ...] = ("candle", "pcb1")) -> Path:
    """Three training, two normal and two anomalous test images each; masks hold the numbers of kinds of defects."""
    lines = ["object,split,label,image,mask"]
    for scenario in scenarios:
        data = f"{scenario}/Data"
        for index in range(5):
            save_image(collection / data / f"Images/Normal/{index:04}.JPG")
            lines.append(f"{scenario},{'train' if index < 3 else 'test'},normal,{data}/Images/Normal/{index:04}.JPG,")
        for index in range(2):
            image, mask = f"{data}/Images/Anomaly/{index:03}.JPG", f"{data}/Masks/Anomaly/{index:03}.png"
            save_image(collection / image, shade=150)
            save_mask(collection / mask, 1, 2 + index)
            lines.append(f"{scenario},test,anomaly,{image},{mask}")
        (collection / scenario / "image_anno.csv").write_text("image,label,mask\n")
    (collection / "split_csv").mkdir()
    for name in ("1cls", "2cls_fewshot", "2cls_highshot"):
        (collection / f"split_csv/{name}.csv").write_text("\n".join(lines) + "\n")
    return collection


def kolektor_sdd(collection: Path) -> Path:
    """Ten items with four surfaces, of which the first shows a defect on every second item."""
    for item in range(1, 11):
        for part in range(4):
            path = collection / f"kos{item:02}/Part{part}"
            save_image(path.with_suffix(".jpg"), mode="L")
            save_mask(path.with_name(f"{path.name}_label.bmp"), *([255] if part == 0 and item % 2 else []))
    return collection


def kolektor_sdd2(collection: Path) -> Path:
    """Six training images, one of them with a defect and one copied, and three test images, one with a defect."""
    for split, first, count in (("train", 10000, 6), ("test", 20000, 3)):
        for index in range(count):
            path = collection / split / f"{first + index}.png"
            save_image(path)
            save_mask(path.with_name(f"{path.stem}_GT.png"), *([255] if index == 1 else []))
    save_image(collection / "train/10003 (copy).png")
    save_mask(collection / "train/10003_GT (copy).png")
    return collection


def dagm(collection: Path, scenarios: tuple[str, ...] = ("Class1", "Class10", "Class2")) -> Path:
    """Four training images, one of them with a defect, and three test images, one with a defect."""
    for scenario in scenarios:
        for split, first, count in (("Train", 576, 4), ("Test", 1, 3)):
            lines = ["1"]
            for index in range(count):
                name, defective = f"{first + index:04}", index == 1
                save_image(collection / scenario / split / f"{name}.PNG", mode="L")
                if defective:
                    save_mask(collection / scenario / split / f"Label/{name}_label.PNG", 255)
                mask = f"1\t{name}_label.PNG" if defective else "0\t0"
                lines.append(f"{index + 1}\t{int(defective)}\t{name}.PNG\t{mask}")
            (collection / scenario / split / "Label/Labels.txt").write_text("\n".join(lines) + "\n")
    return collection


def real_iad(collection: Path, scenarios: tuple[str, ...] = ("audiojack", "usb")) -> Path:
    """Two normal objects and one with a pit that three of its five views show."""
    for scenario in scenarios:
        entries: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
        for number, label in ((1, "OK"), (2, "OK"), (3, "AK")):
            for view in range(1, 6):
                place = "OK" if label == "OK" else f"NG/{label}"
                stem = f"{place}/S{number:04}/{scenario}_{number:04}_{place.replace('/', '_')}_C{view}_20231017090317"
                mask = f"{stem}.png" if label != "OK" and view < 4 else None
                save_image(collection / f"realiad_1024/{scenario}/{stem}.jpg")
                if mask is not None:
                    save_mask(collection / f"realiad_1024/{scenario}/{mask}", 255)
                entries["train" if number == 1 else "test"].append(
                    {"category": scenario, "anomaly_class": label, "image_path": f"{stem}.jpg", "mask_path": mask}
                )
        split = {"meta": {"prefix": f"{scenario}/", "normal_class": "OK", "pre_transform": None}, **entries}
        file = collection / f"realiad_jsons/{scenario}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(split, indent=1))
    return collection


def elpv(collection: Path) -> Path:
    """Ten cells of each kind: five functional, one in doubt, two probably and two certainly defective."""
    lines = []
    probabilities = ("0.0",) * 5 + ("0.3333333333333333",) + ("0.6666666666666666",) * 2 + ("1.0",) * 2
    for index, probability in enumerate(probabilities * 2):
        name = f"images/cell{index + 1:04}.png"
        save_image(collection / name, mode="L")
        lines.append(f"{name}  {probability:<18}  {'mono' if index < 10 else 'poly'}")
    (collection / "labels.csv").write_text("\n".join(lines) + "\n")
    return collection
