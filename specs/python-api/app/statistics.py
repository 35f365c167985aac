"""What is said of a list of numbers."""

import numpy


def summary(numbers: list[float]) -> dict[str, object]:
    array = numpy.array(numbers)
    return {"mean": array.mean(), "median": numpy.median(array), "cumulative": array.cumsum()}
