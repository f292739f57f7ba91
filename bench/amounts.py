"""Numbers on the command line, checked."""

import argparse
import math

MOST = 1000


def counts(text: str) -> list[int]:
    return [count(part) for part in text.split(",")]


def count(text: str) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 to {MOST}")
    return int(text)


def count_or_none(text: str) -> int:
    return 0 if text.strip() == "0" else count(text)


def amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0.1 to {MOST}")
    return value
