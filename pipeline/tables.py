"""The tables of all that is chosen by name; one row adds one thing.

Losses, penalties, networks, extractors, samplers, pruners and data sources have a table each. A row says what
a thing is, what it needs and supports, and what it costs. The choices in `pipeline.config`, `--help`,
validation, the estimates of cost and the advice of `explain` are derived from the rows.
Longer than 350 lines: what can be chosen is read, and added to, in one place.

A row names its code as `module:name`, imported when it is used: this file loads neither torch nor Optuna. The
name of the user's own code (`pipeline.user_code`) is accepted in the place of a row's name.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, TypeVar

from pipeline.errors import ConfigError, nearest
from pipeline.user_code import is_user_code, load


@dataclass(frozen=True)
class Row:
    """One thing that can be chosen.

    target: `module:name` of its code; empty where nothing is to be done (`none`).
    meaning: one line for people.
    arguments: keyword arguments that the code is called with.
    cost: time of a training step relative to the table's cheapest row; orders the choices by expense.
    """

    target: str
    meaning: str
    _: KW_ONLY
    arguments: Mapping[str, object] = field(default_factory=dict)
    cost: float = 1.0


R = TypeVar("R", bound=Row)


class Table(dict[str, R]):
    """The built-in rows by name.

    field: the configuration's field that chooses one. form: what the user's own `module:name` must be, for
    help and messages.
    """

    def __init__(self, field: str, form: str, rows: Mapping[str, R]) -> None:
        super().__init__(rows)
        self.field, self.form = field, form

    @property
    def forms(self) -> tuple[str, ...]:
        """All that may be written, for a list in a text: the rows' names and `module:name`."""
        return (*self, self.form.partition(" ")[0])

    def describe(self) -> str:
        """The rows for `--help`: `tpe (tree-structured Parzen estimators), random (...), or module:name`."""
        rows = ", ".join(f"{name} ({row.meaning})" for name, row in self.items())
        return f"{rows}, or {self.form}"

    def meaning(self, name: str) -> str:
        """The row's meaning, in one line for people."""
        return self[name].meaning if name in self else "your own code"

    def is_user_code(self, name: str) -> bool:
        """Whether `name` means the user's own code."""
        return name not in self and is_user_code(name)

    def check(self, name: str) -> None:
        """ConfigError where `name` is neither a row's nor `module:name`."""
        if name not in self and not self.is_user_code(name):
            raise unknown_choice(self.field, name, self, self.forms)

    def cost(self, name: str) -> float:
        """The row's cost; the user's own counts as more than all."""
        costs = [row.cost for row in self.values()]
        return self[name].cost if name in self else max(costs) + 1

    def load(self, name: str) -> Any:
        """The code of a row, or the user's own; ConfigError where the user's own cannot be loaded."""
        return load_target(self[name].target) if name in self else load(name, self.form)


def unknown_choice(field: str, value: str, names: Iterable[str], forms: Iterable[str] = ()) -> ConfigError:
    """The error for a field's value that is none of `names`. forms: all that may be written, if more."""
    rule = f"{field} is one of {', '.join(filter(None, forms or names))}"
    return ConfigError(f"{field} = {{seen}} is unknown", rule=rule, seen=value, fix=nearest(value, names))


def load_target(target: str) -> Any:
    """Import what a row names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclass(frozen=True, kw_only=True)
class LossRow(Row):
    """An adversarial loss.

    needs_penalty: D must be kept Lipschitz by a gradient penalty or spectral norm. saturates: G's gradient
    vanishes where D wins. resists_collapse: what `explain` advises where G has collapsed.
    """

    needs_penalty: bool = False
    saturates: bool = False
    resists_collapse: bool = False


LOSSES = Table(
    "loss",
    "module:name of a pipeline.training.losses.Loss, or of a function (real, fake) -> (loss of D, loss of G)",
    {
        "minimax": LossRow(
            "pipeline.training.losses:MINIMAX", "the zero-sum game of Goodfellow et al. 2014", saturates=True
        ),
        "nonsaturating": LossRow(
            "pipeline.training.losses:NONSATURATING", "the same with a G that keeps its gradient"
        ),
        "hinge": LossRow("pipeline.training.losses:HINGE", "Lim & Ye 2017; SNGAN, BigGAN"),
        "lsgan": LossRow("pipeline.training.losses:LSGAN", "least squares, Mao et al. 2017"),
        "wasserstein": LossRow(
            "pipeline.training.losses:WASSERSTEIN", "Arjovsky et al. 2017", needs_penalty=True
        ),
        "relativistic": LossRow(
            "pipeline.training.losses:RELATIVISTIC",
            "paired as in R3GAN, Huang et al. 2024",
            resists_collapse=True,
            cost=1.2,
        ),
    },
)


@dataclass(frozen=True, kw_only=True)
class PenaltyRow(Row):
    """A gradient penalty on D. advised: what `explain` advises where there is none.

    at_reals, at_fakes: it is 0.5 E||grad D||^2 at the real images, or the fakes, themselves, so that the
    trainer takes it from logits that it has already.
    """

    at_reals: bool = False
    at_fakes: bool = False
    advised: bool = False


PENALTIES = Table(
    "penalty",
    "module:function (critic, real, fake, mix) -> scalar",
    {
        "none": PenaltyRow("", "no penalty"),
        "dragan": PenaltyRow(
            "pipeline.training.losses:dragan", "around the reals, Kodali et al. 2017", cost=1.8
        ),
        "gp": PenaltyRow("pipeline.training.losses:gp", "WGAN-GP, Gulrajani et al. 2017", cost=1.9),
        "r1": PenaltyRow(
            "pipeline.training.losses:r1",
            "at the reals, Mescheder et al. 2018",
            at_reals=True,
            advised=True,
            cost=2.0,
        ),
        "r1r2": PenaltyRow(
            "pipeline.training.losses:r1r2",
            "at reals and fakes, as in R3GAN",
            at_reals=True,
            at_fakes=True,
            cost=3.0,
        ),
    },
)


@dataclass(frozen=True, kw_only=True)
class NetworkRow(Row):
    """An architecture of G and D. norm_g, norm_d: the normalisations that have an effect.

    cost: at 64 px and width 16, on one core, without a penalty.
    class_norm: its G can take the class by batch norm. halves: it draws only sizes that halve down to a
    map of 4 to 7 px (`pipeline.training.networks.sizes`).
    """

    norm_g: tuple[str, ...] = ("none", "batch")
    norm_d: tuple[str, ...] = ("none", "batch", "layer", "spectral")
    class_norm: bool = False
    halves: bool = False


NETWORKS = Table(
    "architecture",
    "module:function (config, shape) -> (G, D)",
    {
        "mlp": NetworkRow(
            "pipeline.training.networks.architectures:MLP",
            "fully connected, for tiny images",
            class_norm=True,
        ),
        "dcgan": NetworkRow(
            "pipeline.training.networks.architectures:DCGAN",
            "strided convolutions, Radford et al. 2016",
            class_norm=True,
            halves=True,
            cost=10.0,
        ),
        "resnet": NetworkRow(
            "pipeline.training.networks.architectures:RESNET",
            "residual without normalisation, after R3GAN",
            norm_g=("none",),
            norm_d=("none", "spectral"),
            halves=True,
            cost=25.0,
        ),
        "fastgan": NetworkRow(
            "pipeline.training.networks.fastgan:FASTGAN",
            "for few images, with a self-supervised D, Liu et al. 2021",
            halves=True,
            cost=90.0,
        ),
        "r3gan": NetworkRow(
            "pipeline.training.networks.r3gan:R3GAN",
            "R3GAN's own: grouped bottlenecks, Huang et al. 2024",
            norm_g=("none",),
            norm_d=("none", "spectral"),
            halves=True,
            cost=105.0,
        ),
    },
)


@dataclass(frozen=True, kw_only=True)
class ExtractorRow(Row):
    """A feature extractor: a function of the data set, `weights` and `folder`, see `metrics.extractors`.

    version: of its architecture and recipe, in its hash: raise it whenever a number changes.
    needs_labels: of the images. takes_weights: `--extractor-weights` names its file.
    block: images of a pass on a CPU. gpu_block: on a GPU, at most; gpu_pixels: pixels of its images, at most.
    features: length of a feature vector, where it is the same for all images. rate: images per second on one
    core, for an estimate; rate_size: side in pixels from which it falls with the pixels, 0 = never.
    """

    version: str = ""
    needs_labels: bool = False
    takes_weights: bool = False
    block: int = 500
    gpu_block: int = 2_000
    gpu_pixels: float = 2_000 * 32 * 32
    features: int = 0
    rate: float = math.inf
    rate_size: int = 0


EXTRACTORS = Table(
    "extractor",
    "module:function (size, channels) -> (uint8 (N,H,W,C) -> float (N,d))",
    {
        "classifier": ExtractorRow(
            "pipeline.metrics.classifier:classifier_extractor",
            "trained here on the labels of small images",
            version="classifier-1",
            needs_labels=True,
            features=64,
            rate=2_000,
            rate_size=64,
        ),
        "efficientnet": ExtractorRow(
            "pipeline.metrics.efficientnet:efficientnet_extractor",
            "EfficientNet-Lite0, its ImageNet weights inside a package",
            version="efficientnet-lite0-320-1",
            takes_weights=True,
            block=32,
            gpu_block=1_000,
            gpu_pixels=1_000 * 64 * 64,
            features=320,
            rate=500,
            rate_size=64,
        ),
        "inception": ExtractorRow(
            "pipeline.metrics.inception:inception_extractor",
            "what published FIDs are measured in",
            version="inception-tf2015-2048-1",
            takes_weights=True,
            block=50,
            gpu_block=250,
            gpu_pixels=math.inf,  # it resizes all images to the same
            features=2048,
            rate=2.4,
        ),
        "dinov2": ExtractorRow(
            "pipeline.metrics.dinov2:dinov2_extractor",
            "a vision transformer trained without labels, its weights from a file (Stein et al. 2023)",
            version="dinov2-224-1",
            takes_weights=True,
            block=16,
            gpu_block=250,
            gpu_pixels=math.inf,  # as inception
            rate=0.5,  # of ViT-L; that of a file on disk is in `pipeline.metrics.weights`
        ),
        "pixels": ExtractorRow(
            "pipeline.metrics.extractors:pixel_extractor",
            "images of 8x8: no weights, a fallback",
            version="pixels-1",
        ),
    },
)


@dataclass(frozen=True, kw_only=True)
class SamplerRow(Row):
    """A sampler, Optuna's or our own. What it does not model it draws at random.

    package: what `pip install` needs for it; empty = nothing more.
    conditions: it models parameters with `when`. choices: it models choices.
    pruned: it learns from pruned trials too; None: it does not learn.
    """

    package: str = ""
    conditions: bool = True
    choices: bool = True
    pruned: bool | None = True


SAMPLERS = Table(
    "sampler",
    "module:Class of an Optuna sampler",
    {
        "mfgp": SamplerRow(
            "pipeline.search.surrogate.sampler:MfgpSampler",
            "a multi-fidelity Gaussian process of our own",
        ),
        "tpe": SamplerRow(
            "optuna.samplers:TPESampler",
            "tree-structured Parzen estimators",
            arguments={"multivariate": True, "group": True, "constant_liar": True},
        ),
        "random": SamplerRow("optuna.samplers:RandomSampler", "independent draws", pruned=None),
        "qmc": SamplerRow(
            "pipeline.search._compat:SobolSampler",
            "a scrambled Sobol sequence, more even than random draws",
            pruned=None,
        ),
        "gp": SamplerRow("optuna.samplers:GPSampler", "a Gaussian process", conditions=False, pruned=False),
        "cmaes": SamplerRow(
            # Not Optuna's: that one keeps its optimizer in the study as a pickle.
            "pipeline.search._compat:ReplayedCmaEsSampler",
            "evolution of a covariance matrix",
            package="cmaes",
            conditions=False,
            choices=False,
        ),
        "botorch": SamplerRow(
            "optuna_integration:BoTorchSampler",
            "a Gaussian process by BoTorch",
            arguments={"consider_running_trials": True},
            package="optuna-integration botorch",
            conditions=False,
            pruned=False,
        ),
    },
)

PRUNERS = Table(
    "pruner",
    "module:Class of an Optuna pruner",
    {
        "asha": Row("optuna.pruners:SuccessiveHalvingPruner", "each rung keeps the best half"),
        "hyperband": Row("optuna.pruners:HyperbandPruner", "several such ladders side by side"),
        "median": Row("optuna.pruners:MedianPruner", "stops what is worse than the median"),
        "percentile": Row(
            "optuna.pruners:PercentilePruner",
            "keeps the best quarter at each tick",
            arguments={"percentile": 25.0},
        ),
        "none": Row("optuna.pruners:NopPruner", "every trial runs to its end"),
    },
)


@dataclass(frozen=True, kw_only=True)
class DataSourceRow(Row):
    """A source of images: a function of a `SourceRequest` and the arguments that returns an `ImageSource`.

    path: what follows its name and a colon (`folder:PATH`); empty = nothing does.
    """

    path: str = ""


class DataSources(Table[DataSourceRow]):
    """Some are chosen by `name:PATH`, which goes before the user's own `module:function`."""

    @property
    def forms(self) -> tuple[str, ...]:
        """`mnist5k`, ..., `folder:PATH`, ..., `module:function`."""
        names = (f"{name}:{row.path}" if row.path else name for name, row in self.items())
        return (*names, super().forms[-1])

    def describe(self) -> str:
        """The forms for `--help`; the meanings would be too long."""
        *names, own = self.forms
        return f"{', '.join(names)} or {own}"

    def meaning(self, name: str) -> str:
        return super().meaning(name if self.is_user_code(name) else name.partition(":")[0])

    def is_user_code(self, name: str) -> bool:
        row = self.get(name.partition(":")[0])
        return not (row and row.path) and super().is_user_code(name)


def _torchvision(class_name: str, files: str, meaning: str, **more: object) -> DataSourceRow:
    arguments = {"class_name": class_name, "files": files, **more}
    return DataSourceRow(
        "pipeline.data.sources.torchvision_sets:torchvision_source", meaning, arguments=arguments
    )


_IDX = "/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]"

DATA_SOURCES = DataSources(
    "data",
    "module:function () -> images uint8 (N,H,W[,C]), or (images, labels)",
    {
        "mnist5k": DataSourceRow(
            "pipeline.data.sources.packaged:mnist5k", "5,000 real digits inside a package"
        ),
        "digits": DataSourceRow("pipeline.data.sources.packaged:digits", "1,797 digits of 8x8"),
        "mnist": _torchvision("MNIST", "MNIST" + _IDX, "60,000 digits of 28x28"),
        "fashion-mnist": _torchvision("FashionMNIST", "FashionMNIST" + _IDX, "60,000 clothes of 28x28"),
        "kmnist": _torchvision("KMNIST", "KMNIST" + _IDX, "60,000 Japanese characters of 28x28"),
        "emnist": _torchvision(
            "EMNIST",
            "EMNIST/raw/gzip.zip",
            "112,800 letters and digits of 28x28",
            options={"split": "balanced"},
            transposed=True,
        ),
        "usps": _torchvision("USPS", "usps.bz2", "7,291 digits of 16x16"),
        "cifar10": _torchvision("CIFAR10", "cifar-10-python.tar.gz", "50,000 colour images of 32x32"),
        "cifar100": _torchvision("CIFAR100", "cifar-100-python.tar.gz", "the same size, 100 classes"),
        "svhn": _torchvision("SVHN", "train_32x32.mat", "73,257 house numbers of 32x32"),
        "stl10": _torchvision("STL10", "stl10_binary.tar.gz", "5,000 colour images of 96x96"),
        "celeba": _torchvision(
            "CelebA",
            "celeba/{img_align_celeba/,*.txt} (unpacked; five lists)",
            "162,770 faces, at 64x64 by default",
            folder="celeba/img_align_celeba",
            default_size=64,
        ),
        "folder": DataSourceRow(
            "pipeline.data.sources.image_files:folder_source",
            "image files, class sub-folders optional",
            path="PATH",
        ),
        "zip": DataSourceRow(
            "pipeline.data.sources.image_files:zip_source", "a zip of such a folder", path="PATH"
        ),
        "npz": DataSourceRow(
            "pipeline.data.arrays.npz_files:npz_source",
            "arrays of images and perhaps labels, or one npy",
            path="PATH",
        ),
        "hf": DataSourceRow(
            "pipeline.data.sources.hub:hub_source",
            "a Hugging Face data set, NAME or NAME:CONFIG, or a copy: parquet, save_to_disk's folder",
            path="NAME|PATH",
        ),
    },
)

METRIC_FORM = "module:function (images, reals: uint8 (n,H,W,C)) -> a number"
"""What a metric of the user's own must be."""
