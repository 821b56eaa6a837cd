"""Logs that lead to the trace: every line tells the trace, the flow and the node that it was made in."""

import logging

import structlog

from aetherflow import configure, node

log = structlog.get_logger("shop")
library = logging.getLogger("tax_library")  # one that knows nothing of structlog


@node
def price(amount):
    log.info("priced", amount=amount)
    return amount * 9.5


@node
def tax(price):
    library.warning("rate of %d %% assumed", 19)
    return round(price * 1.19, 2)


bill = (price >> tax).named("bill")


def main():
    with configure(service_name="shop", logs=True):  # JSON lines; in a terminal, lines for people
        log.info("opened")
        bill.run({"amount": 3})


if __name__ == "__main__":
    main()
