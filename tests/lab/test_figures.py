"""Figures, the papers' among them, and the pages that commands write."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from jaxrl_surrogate import cli
from jaxrl_surrogate.lab import convergence, figures, reproductions
from jaxrl_surrogate.objectives import advantages, surrogates

DOCS = Path(__file__).parents[2] / "docs"


def _texts(path):
    return {"".join(x.itertext()) for x in ElementTree.parse(path).iter() if x.text}


def _tiny():
    x = np.linspace(0, 1, 5)
    return [
        figures.Panel([figures.Curve(x, x**2, "square", error=0.1 * x)], "one", "x"),
        figures.Panel([figures.Curve(x, x, "line", "reference")], "two", log_y=True),
    ]


def test_the_same_data_are_the_same_file(tmp_path):
    figures.draw(_tiny(), tmp_path / "a.svg")
    figures.draw(_tiny(), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert {"one", "two", "square", "line"} <= _texts(tmp_path / "a.svg")
    for ending in ("png", "pdf"):
        figures.draw(_tiny(), tmp_path / f"a.{ending}")
        assert (tmp_path / f"a.{ending}").stat().st_size > 1000


def test_a_figure_that_cannot_be_written_is_refused_first(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"expected a name in \.svg"):
        figures.check_path(tmp_path / "a.gif")
    with pytest.raises(ValueError, match="is not a folder"):
        figures.check_path(tmp_path / "none" / "a.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[plots\]'"):
        figures.check_path(tmp_path / "a.svg")


def test_the_papers_figures_are_drawn_and_stored(tmp_path, capsys):
    assert reproductions.main([str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.split()) == len(reproductions.FIGURES)
    for name in reproductions.FIGURES:
        # Bytes depend on matplotlib's version; what is written in them does not.
        stored = DOCS / "figures" / f"{name}.svg"
        assert _texts(tmp_path / stored.name) == _texts(stored)
    with pytest.raises(SystemExit):
        reproductions.main([str(tmp_path), "figure_1"])


def test_effective_weights_of_small_groups_by_hand():
    rates, weights = reproductions.effective_weight(advantages.table("grpo", 4))
    np.testing.assert_allclose(weights, np.sqrt(rates * (1 - rates)), atol=1e-15)
    rates, weights = reproductions.effective_weight(
        advantages.table("centred_pass_at_k", 4, k=2)
    )
    # A+ = 2 C(4 - m, 2) / C(3, 2)
    np.testing.assert_allclose(weights, [0, 1 / 4 * 2, 1 / 2 * 2 / 3, 0, 0])


def test_methods_near_their_surrogates():
    """Decreasing with M, and as far as the theory notes say at M = 8 and 64."""
    found = np.array([convergence.distances(size) for size in convergence.SIZES])
    assert (np.diff(found, axis=0) < 0).all()
    grpo, kantorovich = found[[2, 5], 0], found[[2, 5], 1]
    np.testing.assert_allclose(grpo, [1.04, 0.37], atol=0.005)
    np.testing.assert_allclose(kantorovich, [0.19, 0.068], atol=0.005)
    # The tail of the series: sum over k > M of (1 - p)^k / k at p = 0.1.
    k = np.arange(9, 2000)
    assert found[2, 2] == pytest.approx((0.9**k / k).sum(), rel=1e-9)


def test_the_page_of_distances_is_current(tmp_path, capsys):
    assert convergence.main([str(DOCS / "convergence.md"), "--check"]) == 0
    assert convergence.main([str(tmp_path / "none.md"), "--check"]) == 1
    assert "not current" in capsys.readouterr().out


def test_the_report_on_a_rule_draws_its_objective(tmp_path):
    path = tmp_path / "grpo.svg"
    words = ["objective", "grpo", "--group-size", "4", "16", "--against", "arcsin"]
    assert cli.main([*words, "--figure", str(path)]) == 0
    assert {"M = 4", "M = 16", "asked for", "groups without a gradient"} <= _texts(path)


def test_a_wrong_figure_is_named_by_the_program(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jaxrl_surrogate", "objective", "grpo",
         "--figure", str(tmp_path / "a.gif")],
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("jaxrl: --figure='")


def test_the_frontier_says_what_methods_cost(capsys):
    words = ["objective", "--from", "pass_at_k:k=3", "--group-size", "2", "8"]
    assert cli.main([*words, "--frontier", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    by_name = {(r["method"], r["baseline"], r["group_size"]): r for r in rows}
    assert by_name["exact", "none", 8]["result"]["rms_bias"] < 1e-12
    assert "degree 2" in by_name["exact", "none", 2]["refused"]
    noise = [
        by_name["exact", baseline, 8]["result"]["score_variance"]
        for baseline in ("none", "leave_one_out", "min_variance")
    ]
    assert noise == sorted(noise, reverse=True)
    assert cli.main([*words, "--frontier", "--prior", "1", "4"]) == 0
    printed = capsys.readouterr().out
    assert "beta(1.0, 4.0)" in printed and "refused (exact, none)" in printed


def test_distance_is_measured_from_either_end():
    table = advantages.table("reinforce", 1)
    square = surrogates.from_callable(lambda t: t**2)
    from_low = convergence.value_distance(table, square)
    assert from_low == pytest.approx(0.25)  # t - t^2 at 1/2
    from_high = convergence.value_distance(table, square, 0.6, "high")
    assert from_high == pytest.approx(0.24)
