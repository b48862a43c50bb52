"""One file, three functions: an API, a job in the background, a report by cron. `faas deploy examples/shop/app.py`"""

from dataclasses import dataclass, field

from faaslite import Context, Cron, function

PRICES = {"tea": 3, "cake": 5}


@dataclass
class Line:
    sku: str
    count: int = 1

    def __post_init__(self):
        if self.sku not in PRICES:
            raise ValueError(f"there is no {self.sku}; there are {', '.join(PRICES)}")


@dataclass
class Order:
    customer: str
    lines: list[Line] = field(default_factory=list)


@dataclass
class Receipt:
    total: int
    packing: str
    quoted: bool = False


@function(concurrency=20, memory="64Mi")
def price(lines: list[Line]) -> int:
    """What some lines cost."""
    return sum(PRICES[each.sku] * each.count for each in lines)


@function(concurrency=20, memory="64Mi", max=10)
async def create_order(order: Order, context: Context, quote: bool = False) -> Receipt:
    """Take an order.

    The price comes from another function, the packing is done by a third, in the background."""
    total = await price.acall(order.lines)
    if quote:
        return Receipt(total, "", quoted=True)
    packing = await pack.aspawn(order.customer, count=len(order.lines))
    context.logger.info("order of %s: %d", order.customer, total)
    return Receipt(total, packing.id)


@function(cron=Cron("0 18 * * 1-5", tz="Europe/Oslo", name="rest"), retries=5)
def pack(customer: str = "whoever is left", count: int = 0):
    """Pack an order; in the evening, what is left."""
    return f"packed {count} for {customer}"
