"""Plots of a benchmark can be read: one mark per peer."""

from alignmamba.recipes.bench.bench_files import curves

PEERS = [f"peer {number}" for number in range(15)]


def test_one_length_is_drawn_as_bars() -> None:
    axes = curves(
        {"alignmamba": [(800, 0.01)], **{peer: [(800, 0.1 + place)] for place, peer in enumerate(PEERS)}},
        "seconds",
    ).axes[0]
    assert not axes.lines
    assert sorted(bar.get_width() for bar in axes.patches) == [0.01, *(0.1 + place for place in range(15))]
    # the quickest, at the top
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "alignmamba"
    assert "at 800 tokens" in axes.get_xlabel()


def test_several_lengths_are_lines_that_differ() -> None:
    figure = curves(
        {peer: [(800, 0.1), (1600, 0.2 + place)] for place, peer in enumerate(["alignmamba", *PEERS])},
        "seconds",
    )
    lines = figure.axes[0].lines
    assert len({line.get_color() for line in lines}) == len({line.get_marker() for line in lines}) == 16
