"""How much two ways to run the same fitted detector differ."""

from pydantic import BaseModel, ConfigDict, Field


class Parity(BaseModel):
    """How results of one way to run a fitted detector differ from those of its plain float32 module.

    They are compared on the test images of the scenario that it was fitted on.

    Attributes:
        images: How many were compared.
        map_error: Largest difference of two maps' values, as a share of the range of all values of the plain maps.
        score_error: Largest difference of two image scores, as a share of the range of the plain scores.
        threshold: Of the image score: where F1 of the plain scores is highest, on these test images.
        flipped: Images that are on the other side of it; names.
        metrics: Metric to its values by the plain module and by the other way, such as ``image_au_roc``; those that are
            defined for the scenario.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    images: int
    map_error: float
    score_error: float
    threshold: float
    flipped: list[str] = Field(default_factory=list)
    metrics: dict[str, tuple[float, float]] = Field(default_factory=dict)
