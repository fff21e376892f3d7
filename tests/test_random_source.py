"""The source draws from no global generator, and seeds or restores none: read here, line by line."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "celbo"

ALLOWED = {
    ("ops/random.py", "torch.default_generator"): "the block for code of others, and states outside of any block",
    ("ops/random.py", "torch.random.fork_rng"): "the block for code of others",
    ("ops/random.py", "torch.cuda.get_rng_state"): "states outside of any block",
    ("ops/random.py", "torch.cuda.set_rng_state"): "states outside of any block",
    ("ops/random.py", "torch.mps.get_rng_state"): "states outside of any block",
    ("ops/random.py", "torch.mps.set_rng_state"): "states outside of any block",
    ("ops/random.py", "get_device_module.manual_seed"): "the block for code of others",
    ("ops/random.py", "torch.Generator.manual_seed"): "seeds a private generator",
    ("ops/random.py", "torch.default_generator.manual_seed"): "the block for code of others",
    ("ops/draws.py", "q.rsample"): "where draws are given the block's generator",
    ("ops/draws.py", "q.sample"): "where draws are given the block's generator",
    ("testing/distributions.py", "distribution.sample"): "in a private block",
    ("testing/model.py", "np.random.get_state"): "looks whether a model of others left it alone",
    ("testing/model.py", "random.getstate"): "looks whether a model of others left it alone",
    ("testing/model.py", "torch.get_rng_state"): "looks whether a model of others left it alone",
}
"""(file, name) -> why it may stand there. A row that is no longer needed fails the test."""

OPERATORS = {
    *("rand", "randn", "randint", "randperm", "normal", "rand_like", "randn_like", "randint_like", "bernoulli"),
    *("poisson", "multinomial", "binomial", "_standard_gamma", "_sample_dirichlet"),
}
METHODS = {
    *("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "cauchy_", "log_normal_", "geometric_"),
}
GLOBAL = {
    *("manual_seed", "manual_seed_all", "seed_all", "fork_rng", "get_rng_state", "set_rng_state"),
    *("default_generator", "default_generators", "seed_everything", "isolate_rng"),
}
FUNCTIONAL = {"nn", "F", "torch", "torch.nn", "nn.functional", "torch.nn.functional"}
LAYERS = {
    *("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout", "RReLU"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "rrelu"),
    *("MultiheadAttention", "gumbel_softmax", "pca_lowrank", "svd_lowrank"),
}
FIXED = {"zeros_", "ones_", "constant_", "eye_", "dirac_"}
OWN_SAMPLERS = {"module", "states_prior", "super"}
"""What has a method ``sample`` of celbo's own, which draws from the block."""

SCIKIT = {
    *("KMeans", "MiniBatchKMeans", "GaussianMixture", "EllipticEnvelope", "TSNE", "UMAP", "TruncatedSVD"),
    "train_test_split",
}


def dotted(node):
    """A name as it is written; a call is named after the last part of what is called."""
    if isinstance(node, ast.Call):
        name = dotted(node.func)
        return name if name == "torch.Generator" else name.rpartition(".")[2]
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "()"


def has(call, keyword):
    given = [k.value for k in call.keywords if k.arg == keyword]
    return any(not (isinstance(value, ast.Constant) and value.value is None) for value in given)


def names_a_global_generator(node, reads_random):
    base = dotted(node.value)
    numpys = base in ("np.random", "numpy.random") and not node.attr[0].isupper() and node.attr != "default_rng"
    return node.attr in GLOBAL or numpys or (reads_random and base == "random")


def draws_without_a_generator(call):
    base, _, last = dotted(call.func).rpartition(".")
    if has(call, "generator"):
        return False
    return (
        (base == "torch" and last in OPERATORS)
        or (base != "" and last in METHODS)
        or (base.endswith("init") and last.endswith("_") and not last.endswith("__") and last not in FIXED)
        or (base in FUNCTIONAL and last in LAYERS)
        or (last in ("sample", "rsample") and base != "" and base.rpartition(".")[2] not in OWN_SAMPLERS)
        or (last in ("RandomState", "default_rng") and not call.args)
        or last == "rvs"
        or (last in SCIKIT and not has(call, "random_state"))
    )


def draws_or_seeds(tree):
    """Names of what draws from, or touches, a global generator."""
    nodes = list(ast.walk(tree))
    reads_random = any(isinstance(n, ast.Import) and any(a.name == "random" for a in n.names) for n in nodes)
    for node in nodes:
        if isinstance(node, ast.Attribute) and names_a_global_generator(node, reads_random):
            yield dotted(node)
        elif isinstance(node, ast.Call) and draws_without_a_generator(node):
            yield dotted(node.func)


def test_the_source_draws_from_no_global_generator():
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in draws_or_seeds(ast.parse(path.read_text())):
            found.add((path.relative_to(PACKAGE).as_posix(), name))
    assert sorted(found - ALLOWED.keys()) == []
    assert sorted(ALLOWED.keys() - found) == [], "rows that are no longer needed"


@pytest.mark.parametrize(
    "line",
    [
        "torch.manual_seed(0)",
        "torch.random.fork_rng()",
        "torch.randn(3)",
        "torch.randn(3, generator=None)",
        "torch.empty(3).normal_()",
        "self.weight.data.uniform_(-1, 1)",
        "nn.init.xavier_normal_(w)",
        "nn.Dropout(0.1)",
        "F.dropout(x)",
        "Normal(0, 1).rsample()",
        "outputs['px'].sample()",
        "np.random.seed(0)",
        "np.random.permutation(5)",
        "np.random.default_rng()",
        "import random; random.shuffle(x)",
        "cluster.KMeans(3)",
        "st.norm.rvs(size=3)",
    ],
)
def test_the_reader_of_the_source_finds(line):
    assert list(draws_or_seeds(ast.parse(line)))
