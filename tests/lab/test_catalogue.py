"""The table of rules in docs/ is the one that the registry makes."""

from pathlib import Path

from jaxrl_surrogate.lab import catalogue
from jaxrl_surrogate.objectives import advantages, other_trainers

STORED = Path(__file__).parents[2] / "docs" / "objectives.md"


def test_the_table_is_current_and_a_stale_one_is_seen(tmp_path, capsys):
    assert catalogue.main([str(STORED), "--check"]) == 0
    stale = tmp_path / "objectives.md"
    assert catalogue.main([str(stale), "--check"]) == 1
    stale.write_text(STORED.read_text().replace("rloo", "loo", 1))
    assert catalogue.main([str(stale), "--check"]) == 1
    assert "not current" in capsys.readouterr().out
    assert catalogue.main([str(stale)]) == 0
    assert catalogue.main([str(stale), "--check"]) == 0


def test_every_rule_has_a_row():
    rows = [line for line in catalogue.table().splitlines() if line.startswith("| `")]
    assert len(rows) == len(advantages.names()) + len(other_trainers.names())
    nemo = next(row for row in rows if "`nemo:grpo`" in row)
    assert "| 1 2.65 2.05 1.87 1.87 2.05 2.65 1 |" in nemo
