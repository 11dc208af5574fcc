import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from skocc.metrics import excess_mass_auc, mass_volume_auc

# Quantiles of a standard normal distribution and a grid on [-5, 5]: samples without chance.
NORMAL = norm.ppf((np.arange(20000) + 0.5) / 20000)
UNIFORM = (np.arange(100000) + 0.5) / 10000 - 5


def test_mass_volume_of_the_normal_density():
    """The level set of mass m is an interval of length 2 ppf((1 + m) / 2)."""
    expected, _ = quad(lambda mass: 2 * norm.ppf((1 + mass) / 2), 0.9, 0.999)
    area = mass_volume_auc(norm.pdf(NORMAL), norm.pdf(UNIFORM), volume=10)
    assert area == pytest.approx(expected, rel=1e-3)


def test_excess_mass_of_the_normal_density():
    """The level set of density t is [-z, z] with pdf(z) = t."""

    def excess(t):
        z = np.sqrt(-2 * np.log(t * np.sqrt(2 * np.pi)))
        return 2 * norm.cdf(z) - 1 - 2 * z * t

    limit = brentq(lambda t: excess(t) - 0.9, 1e-9, 0.1)
    expected, _ = quad(excess, 1e-12, limit)
    area = excess_mass_auc(norm.pdf(NORMAL), norm.pdf(UNIFORM), volume=10)
    assert area == pytest.approx(expected, rel=1e-3)


def sample(seed):
    rng = np.random.default_rng(seed)
    # Rounded, so that scores coincide.
    return np.round(rng.normal(1, 1, 50), 1), np.round(rng.normal(-1, 2, 200), 1)


@pytest.mark.parametrize("seed", range(5))
def test_mass_volume_by_a_grid_of_masses(seed):
    normal, uniform = sample(seed)
    masses = np.linspace(0.5, 1, 100001)[:-1] + 0.25e-5
    thresholds = np.sort(normal)[::-1][np.ceil(masses * 50).astype(int) - 1]
    expected = 0.5 * np.mean([(uniform >= t).mean() for t in thresholds[::50]]) * 3
    area = mass_volume_auc(normal, uniform, volume=3, mass_range=(0.5, 1))
    assert area == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_excess_mass_by_a_grid_of_densities(seed):
    normal, uniform = sample(seed)
    thresholds = np.unique(normal)
    masses = np.array([(normal >= t).mean() for t in thresholds])
    volumes = 3 * np.array([(uniform >= t).mean() for t in thresholds])
    densities = np.linspace(0, 2, 20001)
    excess = (masses - densities[:, None] * volumes).max(axis=1)
    expected = np.sum(excess[excess > 0.9]) * 1e-4
    assert excess[-1] < 0.9
    assert excess_mass_auc(normal, uniform, volume=3) == pytest.approx(expected, abs=2e-4)


def test_directions_and_invariance():
    """The density is best; what is increasing in it is the same; volume is a unit."""
    for area, sign in ((mass_volume_auc, -1), (excess_mass_auc, 1)):
        best = area(norm.pdf(NORMAL), norm.pdf(UNIFORM))
        shifted = area(norm.pdf(NORMAL - 0.5), norm.pdf(UNIFORM - 0.5))
        constant = area(np.ones(100), np.ones(100))
        assert sign * best > sign * shifted > sign * constant
        logged = area(norm.logpdf(NORMAL), norm.logpdf(UNIFORM))
        assert logged == pytest.approx(best, rel=1e-9)
        scaled = area(norm.pdf(NORMAL), norm.pdf(UNIFORM), volume=4)
        assert scaled == pytest.approx(best * 4.0**-sign, rel=1e-9)
    assert mass_volume_auc(np.ones(100), np.ones(100)) == pytest.approx(0.099)
    assert excess_mass_auc(np.ones(100), np.ones(100)) == pytest.approx(0.095)


def test_nan_is_the_lowest_score():
    normal, uniform = sample(0)
    for area in (mass_volume_auc, excess_mass_auc):
        with_nan = np.where(uniform < -2, np.nan, uniform)
        assert area(normal, with_nan) == area(normal, np.where(uniform < -2, -99, uniform))


@pytest.mark.parametrize("area", [mass_volume_auc, excess_mass_auc])
def test_what_is_refused(area):
    with pytest.raises(ValueError, match="scores_normal must hold a score"):
        area([], [1.0])
    with pytest.raises(ValueError, match="scores_uniform must hold a score"):
        area([1.0], [])
    with pytest.raises(ValueError, match="volume must be positive"):
        area([1.0], [1.0], volume=0)
    with pytest.raises(ValueError, match=r"volume must be positive.*Got 5e-324"):
        area([1.0], [1.0], volume=5e-324)
    with pytest.raises(ValueError, match=r"Got 3 uniform samples\. Draw more"):
        area([1.0, 2.0], [0.0, 0.5, -1.0])


@pytest.mark.parametrize("mass_range", [(0.9, 0.9), (0.9, 1.1), (-0.1, 0.5)])
def test_masses_that_are_refused(mass_range):
    with pytest.raises(ValueError, match="mass_range must be two fractions"):
        mass_volume_auc([1.0], [1.0], mass_range=mass_range)


@pytest.mark.parametrize("number", [np.float32, np.float16, np.int8, int])
@pytest.mark.parametrize("metric", [mass_volume_auc, excess_mass_auc])
def test_a_volume_may_be_any_number(metric, number):
    scores = np.random.default_rng(0).normal(size=50)
    area = metric(scores, scores - 1, volume=number(2))
    assert area == metric(scores, scores - 1, volume=2.0)
    assert type(area) is float
    for extreme in (10**400, np.float32("inf"), np.float32(0)):
        with pytest.raises(ValueError, match="volume must be positive and finite"):
            metric(scores, scores - 1, volume=extreme)
