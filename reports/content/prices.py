"""What an hour of a device costs its user."""

import re
from dataclasses import dataclass

from reports.errors import ReportError

_PRICE = re.compile(r"(?:(?P<device>[^=]+)=)?\s*(?P<amount>\d+(?:\.\d+)?)\s*(?P<currency>[^\W\d_]{1,5})?\s*/\s*h")


@dataclass(frozen=True)
class Price:
    """What an hour costs.

    Attributes:
        device: Part of the name of the devices it is for; empty for all.
        amount: Per hour.
        currency: As the user has it; may be empty.
    """

    device: str
    amount: float
    currency: str

    def per_million(self, images_per_second: float) -> float:
        """What a million images cost at a throughput."""
        return self.amount / 3600 / images_per_second * 1e6


def parse_prices(text: str) -> tuple[Price, ...]:
    """Read prices, comma separated: ``1.2/h`` for every device, ``A6000=0.8 EUR/h,H100=2.5 EUR/h`` for some.

    Raises:
        ReportError: It is of another form.
    """
    prices = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _PRICE.fullmatch(part)
        if match is None or not float(match["amount"]):
            raise ReportError(
                f"--price does not take {part!r}; allowed: AMOUNT/h, AMOUNT CURRENCY/h or DEVICE=AMOUNT CURRENCY/h, "
                "comma separated, such as 1.2/h or 'A6000=0.8 EUR/h,H100=2.5 EUR/h'"
            )
        prices.append(Price((match["device"] or "").strip(), float(match["amount"]), match["currency"] or ""))
    return tuple(prices)


def price_of(name: str, prices: tuple[Price, ...]) -> Price | None:
    """The first price that is for a device of this name, one that names it before one for all; ``None`` if none is."""
    own = [price for price in prices if price.device.casefold() in name.casefold()]
    return max(own, key=lambda price: bool(price.device), default=None)
