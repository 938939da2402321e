"""The merge recipe: the configuration of a merge."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from adapterctl.errors import MergeError
from adapterctl.fingerprint import file_hash
from adapterctl.merging.dialects import DIALECTS, Dialect
from adapterctl.merging.methods import METHODS, Method
from adapterctl.merging.schedule import Schedule
from adapterctl.settings import Settings

MethodName = Literal[
    "linear",
    "ties",
    "ties-slack",
    "dare-linear",
    "dare-ties",
    "magnitude-prune",
    "della",
    "breadcrumbs",
    "sce",
    "knots-linear",
    "knots-ties",
    "knots-dare-ties",
    "core-ta",
    "core-ties",
    "core-dare-ties",
    "core-tsv",
    "core-iso-c",
    "svc",
    "pico",
    "regmean",
]

FACTORWISE = ("linear", "ties", "dare-linear", "dare-ties", "magnitude-prune")
"""The methods that PEFT also offers on A and B apart."""


def _content(path: str) -> str:
    try:
        return f"sha256:{file_hash(Path(path))}"
    except OSError as error:
        reason = error.strerror or str(error)
        raise MergeError(f"cannot read the Gram matrices {path}: {reason}", hint="correct merge.grams") from None


class MergeRecipe(Settings):
    """How the adapters of all languages become one.

    The merged ΔW is λ times what the method makes of the weighted deltas. Weights are used as they are, never
    normalised: a language without one gets 1/T (T languages) where the method adds deltas up, and 1 elsewhere.
    """

    method: MethodName = Field(
        "core-tsv", description="How deltas are combined; `core-tsv` keeps most on the pocket model."
    )
    weights: dict[str, float] = Field(default_factory=dict, description="Weight of a language, used as it is.")
    density: float = Field(0.6, gt=0, le=1, description="Share of entries that methods which drop entries keep.")
    lambda_: Literal["auto"] | float = Field(
        "auto", alias="lambda", description="Factor on the whole result; `auto` chooses it on the dev split."
    )
    base_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the base model as a participant without a delta: the result is multiplied by 1 - share.",
    )
    layers: dict[str, float | dict[str, float]] = Field(
        default_factory=dict,
        description='Factor on the merged ΔW of layers, `"0-7": 0.5`, or on the weights of languages there, '
        '`"0-7": {ja: 0.5}`; other layers have 1.',
    )
    modules: dict[str, float | dict[str, float]] = Field(
        default_factory=dict, description="The same for kinds of modules: `q_proj: 0.5`, `mlp: {ja: 0.5}`."
    )
    missing: Literal["refuse", "zero", "present"] = Field(
        "refuse",
        description="What to do with a module that only some adapters have: refuse to merge, take the others as zero "
        "there, or merge among those that have it.",
    )
    seed: int = Field(0, description="Seed of the random masks of DARE and DELLA.")
    epsilon: float = Field(
        0.1, ge=0, lt=1, description="DELLA: keep probabilities run from density - epsilon to density + epsilon."
    )
    gamma: float = Field(0.01, ge=0, lt=1, description="Breadcrumbs: share of the largest entries that is dropped.")
    slack: float = Field(
        0.0, ge=0, description="TIES with slack: by how much protected languages may lose a vote and still win it."
    )
    protect: tuple[str, ...] = Field((), description="TIES with slack: the protected languages.")
    grams: dict[str, str] = Field(
        default_factory=dict, description="RegMean: safetensors file with a language's Gram matrices, by language."
    )
    rank: Literal["auto", "full"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="Rank of the result: `auto` is the sum of the adapters' ranks, `full` what dense methods need to "
        "lose nothing, a number truncates.",
    )
    semantics: Literal["paper", "mergekit", "peft"] = Field(
        "paper", description="Whose fine print methods follow that drop entries or vote: the papers', mergekit, PEFT."
    )
    space: Literal["auto", "factors"] = Field(
        "auto",
        description="`factors` merges A and B apart, as PEFT does without `_svd`; only under semantics peft, and not "
        "what ΔW asks for.",
    )
    precision: Literal["float32", "float64"] = Field(
        "float32", description="What entries are computed in; inner products are always float64."
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="What the result is stored in.")

    @field_validator("dtype", "precision", mode="before")
    @classmethod
    def _short_names(cls, value: Any) -> Any:
        """Take the short names that people write as well."""
        return {"fp32": "float32", "bf16": "bfloat16", "fp64": "float64"}.get(value, value)

    @property
    def row(self) -> Method:
        """The method's row of data."""
        return METHODS[self.method]

    @property
    def dialect(self) -> Dialect:
        """The fine print that holds."""
        core = self.semantics == "paper" and self.row.space == "core"
        return DIALECTS["core" if core else self.semantics]

    @property
    def schedule(self) -> Schedule:
        """The factors by layer and by kind of module."""
        return Schedule(self.layers, self.modules)

    def resolved_weights(self, languages: Collection[str]) -> dict[str, float]:
        """Return the weight of every language, in alphabetical order."""
        default = self.row.default_weight(len(languages))
        return {lang: self.weights.get(lang, default) for lang in sorted(languages)}

    def resolved_lambda(self, scale: float | None = None) -> float:
        """Return λ as a number: the recipe's own, else ``scale``, else 1."""
        if self.lambda_ != "auto":
            return self.lambda_
        return 1.0 if scale is None else scale

    def resolved(self, languages: Collection[str], scale: float | None = None) -> dict[str, Any]:
        """Return the recipe with λ and every language's weight as numbers, and files by their content.

        Raises:
            MergeError: A file of Gram matrices cannot be read.
        """
        return {
            **self.model_dump(mode="json", by_alias=True),
            "grams": {lang: _content(path) for lang, path in sorted(self.grams.items())},
            "lambda": self.resolved_lambda(scale),
            "weights": self.resolved_weights(languages),
        }
