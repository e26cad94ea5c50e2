"""Parameters with which every registered surrogate is tested."""

VARIANTS = {
    "identity": [{}],
    "log": [{}],
    "arcsin": [{}],
    "logit": [{}],
    "pass_at_k": [{"k": 1}, {"k": 2}, {"k": 16}],
    "arcsin_pass_at_k": [{"k": 1}, {"k": 2}, {"k": 5}],
    "asymmetric": [{"delta": 0.5}, {"delta": 3.0}],
    "power": [{"r": 0.5}, {"r": 1}, {"r": 2.5}, {"r": -2}, {"r": -0.3}],
    "entropic": [{"beta": 3.0}, {"beta": -2.0}],
    "beta": [{"alpha": 0.4, "beta": 1.7}, {"alpha": 3, "beta": 2}],
    "focal": [{"gamma": 1.0}, {"gamma": -0.3}],
    "regularized": [
        {"base": "identity", "regularizer": "variance", "weight": 0.9},
        {"base": "arcsin", "regularizer": "std", "weight": 0.5},
        {"base": "logit", "regularizer": "entropy", "weight": 0.5},
        {
            "base": "pass_at_k",
            "regularizer": "variance",
            "weight": -0.01,
            "base_params": {"k": 2},
        },
    ],
    "log_pass_at_k": [{"k": 1}, {"k": 3}],
    "pass_hat_k": [{"k": 1}, {"k": 5}],
    "truncated_log": [{"order": 1}, {"order": 6}],
    "sum_pass_at_k": [{"order": 1}, {"order": 6}],
}
