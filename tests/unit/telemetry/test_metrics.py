"""Prometheus' text form."""

from telemetry.metrics import Counter, Histogram, family, render


def test_the_page_of_gauges_and_counters() -> None:
    """Help and type once, a line per sample, values without needless digits, texts quoted."""
    text = render(
        [
            family("a_b", "gauge", "Help", [({}, 1.0), ({"x": 'q"\n\\'}, 0.25)]),
            family("none_total", "counter", "Nothing yet", []),
        ]
    )
    assert text == (
        "# HELP a_b Help\n# TYPE a_b gauge\n"
        'a_b 1\na_b{x="q\\"\\n\\\\"} 0.25\n'
        "# HELP none_total Nothing yet\n# TYPE none_total counter\n"
    )


def test_a_counter_counts_by_labels() -> None:
    """Each combination by itself, in order."""
    counter = Counter(("outcome", "who"))
    counter.add("fail", "b")
    counter.add("fail", "a", by=2)
    counter.add("fail", "b")
    lines = render([counter.family("x_total", "X")]).splitlines()
    assert lines[2:] == ['x_total{outcome="fail",who="a"} 2', 'x_total{outcome="fail",who="b"} 2']


def test_a_histogram_counts_up_to_its_bounds() -> None:
    """A bound belongs to its bucket; buckets add up; sum and count are told."""
    histogram = Histogram(("kind",), (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value, "read")
    lines = render([histogram.family("d_seconds", "D")]).splitlines()
    assert lines[1:] == [
        "# TYPE d_seconds histogram",
        'd_seconds_bucket{kind="read",le="0.1"} 2',
        'd_seconds_bucket{kind="read",le="1"} 3',
        'd_seconds_bucket{kind="read",le="+Inf"} 4',
        'd_seconds_sum{kind="read"} 7.65',
        'd_seconds_count{kind="read"} 4',
    ]


def test_a_declared_histogram_is_shown_before_its_first_value() -> None:
    """At zero, and what it counted already stays."""
    histogram = Histogram(("kind",), (0.1,))
    histogram.declare("read")
    lines = render([histogram.family("d_seconds", "D")]).splitlines()
    assert lines[2:] == [
        'd_seconds_bucket{kind="read",le="0.1"} 0',
        'd_seconds_bucket{kind="read",le="+Inf"} 0',
        'd_seconds_sum{kind="read"} 0',
        'd_seconds_count{kind="read"} 0',
    ]
    histogram.observe(0.05, "read")
    histogram.declare("read")
    assert render([histogram.family("d_seconds", "D")]).splitlines()[-1].endswith(" 1")
