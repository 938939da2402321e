"""Where a version comes from, down to the rows and the base model, and what was made from it.

The registry is read as what it is: a place where others write, too. What a release says of its adapters is compared
with what stands there now; whatever was deleted or replaced since is told, and never an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from adapterctl.errors import AdapterctlError, RegistryError
from adapterctl.registry.names import TAG_KIND, adapter_name, merged_name
from adapterctl.workflows.models import version_named
from adapterctl.workflows.releases import read_release
from adapterctl.workflows.summaries import (
    BASE_IDENTITY_TAG,
    BASE_TAG,
    DATA_TAG,
    GATE_TAG,
    REASON_TAG,
    ROWS_TAG,
    inputs_of,
    is_release,
)

if TYPE_CHECKING:
    from adapterctl.registry.client import Registry
    from adapterctl.registry.versions import Version
    from adapterctl.workflows.session import Session

LINEAGE_FILE = "adapterctl/lineage.json"
THERE, GONE, REPLACED = "there", "gone", "replaced"
_LONGEST_CHAIN = 1000


@dataclass(frozen=True)
class Rows:
    """The training rows of an adapter.

    Attributes:
        sha256: Their content hash; empty where it was never noted.
        rows: How many; None where unknown.
    """

    sha256: str
    rows: int | None


@dataclass(frozen=True)
class Ancestor:
    """An adapter that a merge took in, or that a training went on from.

    Attributes:
        name: The registered model.
        version: Its number.
        content_hash: Of the adapter that was used; empty where nobody noted it.
        state: ``there``; ``gone``: the version was deleted; ``replaced``: another adapter stands under its number.
        created: When it was registered; empty where it is gone.
        aliases: What points at it.
        rows: What it was trained from; None where nobody knows.
        base: Name and identity of its base model; empty texts where unknown.
        missing: What else was deleted: ``run``, ``files``.
        continues: The adapters that its training went on from, the last one first.
    """

    name: str
    version: int
    content_hash: str
    state: str
    created: str = ""
    aliases: tuple[str, ...] = ()
    rows: Rows | None = None
    base: tuple[str, str] = ("", "")
    missing: tuple[str, ...] = ()
    continues: tuple[Ancestor, ...] = ()


@dataclass(frozen=True)
class Descendant:
    """A version that was made from the one that was asked about.

    Attributes:
        name: The registered model.
        version: Its number.
        how: ``merged`` or ``continued``.
        created: When it was registered.
        aliases: What points at it.
        gate: What the gate said, of a merged one.
        reason: Which command made it, of a merged one.
    """

    name: str
    version: int
    how: str
    created: str
    aliases: tuple[str, ...]
    gate: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Lineage:
    """A version with all that is before and behind it.

    Attributes:
        subject: The version itself; what it continues is told here too.
        kind: ``merged-adapter``, ``lora-adapter`` or what else somebody registered.
        gate, reason: Of a release.
        recipe: How it was merged; empty for one language's adapter.
        inputs: The adapters that were merged.
        used_in: What was made from it, newest first.
        source: Where the inputs were read: ``release.json``, ``lineage.json``, ``tags``, ``run``; or nowhere.
        notes: One sentence for everything odd.
    """

    subject: Ancestor
    kind: str
    gate: str = ""
    reason: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Ancestor, ...] = ()
    used_in: tuple[Descendant, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the lineage as plain values."""
        return asdict(self)


def lineage(session: Session, text: str) -> Lineage:
    """Return the lineage of a version.

    Args:
        session: The command at work.
        text: A name as ``models.version_named`` takes it: ``merged@champion``, ``ja/3``.

    Raises:
        UsageError: There is no such version.
        RegistryError: The registry cannot be reached.
    """
    version = version_named(session, text)
    return _Reader(session.registry).lineage(version)


@dataclass(frozen=True)
class _Used:
    """What a record says that was taken in: the version, and what it was then."""

    name: str
    version: int
    content_hash: str = ""
    rows: Rows | None = None


class _Reader:
    """Reads lineages of one registry, with every version of the project at hand."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known = {(version.name, version.version): version for version in registry.all_versions()}
        self._aliases: dict[str, dict[str, int]] = {}
        self._notes: list[str] = []

    def lineage(self, version: Version) -> Lineage:
        """Return the lineage of a version."""
        # One that something else has registered carries no tag of the project.
        self._known.setdefault((version.name, version.version), version)
        merged = version.name == merged_name(self._registry.project)
        used, source, recipe = self._taken_in(version) if merged else ([], "", {})
        inputs = tuple(self._ancestor(one) for one in used)
        subject = self._ancestor(_Used(version.name, version.version, version.content_hash), deep=True)
        if merged and not is_release(version):
            self._notes.append(f"{version} is no whole release: its command was killed, or something else made it")
        self._compare_bases(subject, inputs)
        return Lineage(
            subject=subject,
            kind=version.tags.get(TAG_KIND, ""),
            gate=version.tags.get(GATE_TAG, ""),
            reason=version.tags.get(REASON_TAG, ""),
            recipe=recipe,
            inputs=inputs,
            used_in=tuple(self._descendants(version)),
            source=source,
            notes=tuple(self._notes),
        )

    def _taken_in(self, version: Version) -> tuple[list[_Used], str, dict[str, Any]]:
        """Return what a merge took in, from the best record of it that is left, and its recipe."""
        try:
            release = read_release(self._registry, version)
            if release.content_hash != version.content_hash:
                raise RegistryError("it tells of another adapter")
            pins = [
                _Used(_adapter(self._registry, lang), pin.version, pin.content_hash, _rows(pin.data_hash, pin.rows))
                for lang, pin in sorted(release.adapters.items())
            ]
            return pins, "release.json", {**release.recipe, "lambda": release.scale}
        except AdapterctlError as error:
            self._notes.append(f"its release.json cannot be read: {error.message}")
        try:
            told = self._registry.read_json(version, LINEAGE_FILE)
            recipe = told.get("recipe")
            return _listed(told["inputs"]), "lineage.json", recipe if isinstance(recipe, dict) else {}
        except (AdapterctlError, ValueError, TypeError, KeyError, AttributeError):
            self._notes.append("its lineage.json cannot be read")
        if tagged := inputs_of(version.tags):
            return [_Used(name, number) for name, number in tagged], "tags", {}
        return self._of_run(version), "run", {}

    def _of_run(self, version: Version) -> list[_Used]:
        """Return what the run of a merge says that it took in: MLflow's own record, by logged models."""
        run, _ = self._registry.what_is_left(version)
        by_model = {one.model_id: one for one in self._known.values() if one.model_id}
        models = [model.model_id for model in (run.inputs.model_inputs if run and run.inputs else ())]
        found = [by_model[model] for model in models if model in by_model]
        if lost := len(models) - len(found):
            self._notes.append(f"{lost} of the adapters in it have no version any more")
        return [_Used(one.name, one.version, one.content_hash) for one in found]

    def _ancestor(self, used: _Used, *, look: bool = True, chain: bool = True, deep: bool = False) -> Ancestor:
        """Return what became of a version that was taken in.

        Args:
            used: What the record says.
            look: Whether run and files are looked for, which takes two requests.
            chain: Whether to tell what its training went on from.
            deep: Whether run and files of those are looked for, too.
        """
        version = self._known.get((used.name, used.version))
        if version is None:
            return Ancestor(used.name, used.version, used.content_hash, GONE, rows=used.rows)
        replaced = bool(used.content_hash) and version.content_hash != used.content_hash
        run, missing = self._registry.what_is_left(version) if look else (None, ())
        return Ancestor(
            name=used.name,
            version=used.version,
            content_hash=used.content_hash or version.content_hash,
            state=REPLACED if replaced else THERE,
            created=version.created,
            aliases=self._pointing(version),
            # Of an adapter that stands in another's place nothing is told as if it were that one's.
            rows=used.rows or (None if replaced else self._rows_of(version, run)),
            base=("", "") if replaced else (version.tags.get(BASE_TAG, ""), version.tags.get(BASE_IDENTITY_TAG, "")),
            missing=missing,
            continues=() if replaced or not chain else tuple(self._chain(version, look=deep)),
        )

    def _chain(self, version: Version, *, look: bool) -> Iterator[Ancestor]:
        """Yield the adapters that a training went on from, and those before; a circle, which is no truth, is left."""
        seen, name, tags = {version.version}, version.name, version.tags
        while len(seen) < _LONGEST_CHAIN:
            before = next((number for other, number in inputs_of(tags) if other == name and number not in seen), None)
            if before is None or name == merged_name(self._registry.project):
                return
            seen.add(before)
            yield self._ancestor(_Used(name, before), look=look, chain=False)
            known = self._known.get((name, before))
            tags = known.tags if known else {}

    def _rows_of(self, version: Version, run: Any) -> Rows | None:
        """Return the rows of an adapter: from its tags, or from the inputs of its run where it was made before them."""
        if version.name == merged_name(self._registry.project):
            return None
        if found := _rows(version.tags.get(DATA_TAG, ""), version.tags.get(ROWS_TAG)):
            return found
        for given in run.inputs.dataset_inputs if run is not None and run.inputs else ():
            tags = {tag.key: tag.value for tag in given.tags}
            if tags.get("mlflow.data.context") == "training":
                return _rows(tags.get("sha256", ""), tags.get("rows"))
        return None

    def _descendants(self, version: Version) -> Iterator[Descendant]:
        merged = merged_name(self._registry.project)
        for other in sorted(self._known.values(), key=lambda one: (one.name != merged, one.name, -one.version)):
            if (version.name, version.version) in inputs_of(other.tags):
                how = "merged" if other.name == merged else "continued"
                told = (other.tags.get(GATE_TAG, ""), other.tags.get(REASON_TAG, "")) if how == "merged" else ("", "")
                yield Descendant(other.name, other.version, how, other.created, self._pointing(other), *told)

    def _pointing(self, version: Version) -> tuple[str, ...]:
        if version.name not in self._aliases:
            self._aliases[version.name] = self._registry.aliases(version.name)
        return tuple(alias for alias, number in self._aliases[version.name].items() if number == version.version)

    def _compare_bases(self, subject: Ancestor, inputs: tuple[Ancestor, ...]) -> None:
        identities = {one.base[1] for one in (subject, *inputs) if one.base[1]}
        if len(identities) > 1:
            self._notes.append(f"its adapters belong to {len(identities)} different base models")


def _adapter(registry: Registry, lang: str) -> str:
    try:
        return adapter_name(registry.project, lang)
    except AdapterctlError:
        # A release that somebody else wrote; the name is shown, and found nowhere.
        return f"{registry.project}-{lang}"


def _rows(sha256: str, rows: Any) -> Rows | None:
    """Return the rows that a record tells of; None where it tells of none."""
    try:
        count = int(str(rows)[:20]) if rows else None
    except ValueError:
        count = None
    return Rows(sha256, count) if sha256 or count else None


def _listed(inputs: Any) -> list[_Used]:
    """Return the inputs that a ``lineage.json`` lists.

    Raises:
        ValueError, TypeError, KeyError: It is none of ours.
    """
    return [_Used(str(one["name"]), int(one["version"]), str(one["content_hash"])) for one in inputs]
